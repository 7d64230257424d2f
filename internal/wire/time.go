package wire

import "time"

// ParseTime reads a time of the wire in µs since the epoch: a date, a time of day with 0 to 9 fraction digits (what
// is finer than a µs is cut off) and Z or an offset. A time without a zone is not read: whose zone it meant nobody
// knows, and what a caller puts in its place is the time of receipt.
func ParseTime(text []byte) (micros int64, ok bool) {
	if len(text) < len("2006-01-02T15:04:05Z") || text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':' {
		return 0, false
	}
	if c := text[10]; c != 'T' && c != 't' && c != ' ' {
		return 0, false
	}
	year, ok1 := number(text[:4])
	month, ok2 := number(text[5:7])
	day, ok3 := number(text[8:10])
	hour, ok4 := number(text[11:13])
	minute, ok5 := number(text[14:16])
	second, ok6 := number(text[17:19])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || year < 1 || month < 1 || month > 12 || day < 1 ||
		day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	fraction, rest, ok := fractionMicros(text[19:])
	if !ok {
		return 0, false
	}
	offset, ok := offsetSeconds(rest)
	if !ok {
		return 0, false
	}
	seconds := days(year, month, day)*86400 + int64(hour*3600+minute*60+second-offset)
	return seconds*1e6 + fraction, true
}

// number reads decimal digits.
func number(text []byte) (n int, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(text) > 0
}

// fractionMicros reads the fraction that text may begin with.
func fractionMicros(text []byte) (micros int64, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '.' && text[0] != ',' {
		return 0, text, true
	}
	i := 1
	for ; i < len(text) && text[i]-'0' <= 9; i++ {
		if i <= 6 {
			micros = micros*10 + int64(text[i]-'0')
		}
	}
	for j := i; j <= 6; j++ {
		micros *= 10
	}
	return micros, text[i:], i > 1 && i <= 10
}

// offsetSeconds reads what ends a time: Z, ±hh:mm, ±hhmm or ±hh.
func offsetSeconds(text []byte) (seconds int, ok bool) {
	if len(text) == 1 && text[0]|0x20 == 'z' {
		return 0, true
	}
	if len(text) < 3 || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	hour, ok := number(text[1:3])
	if !ok || hour > 23 {
		return 0, false
	}
	minute := 0
	if rest := text[3:]; len(rest) > 0 {
		if rest[0] == ':' {
			rest = rest[1:]
		}
		if minute, ok = number(rest); !ok || len(rest) != 2 || minute > 59 {
			return 0, false
		}
	}
	seconds = hour*3600 + minute*60
	if text[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// days counts from the epoch to a day of the Gregorian calendar.
func days(year, month, day int) int64 {
	if month <= 2 { // so that the leap day ends a year
		year--
		month += 12
	}
	return int64(365*year+year/4-year/100+year/400+(153*(month-3)+2)/5+day-1) - 719468
}

// AppendTime writes a time as both ends sign it: UTC with six fraction digits, or with none if they would be zeros.
// Agents up to 1.5.0 hash the time after a round trip through such a writer, so no other spelling will do.
func AppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Nanosecond()/1000 == 0 {
		return t.AppendFormat(dst, "2006-01-02T15:04:05Z")
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
}
