package backup

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A tar file of ours has one form for given members, so that a header can be compared and not only read.
const (
	blockSize = 512
	endSize   = 2 * blockSize // of zeros
)

var zeros [endSize]byte

// header is the block before a member. The members' real times stand in the manifest.
func header(name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, fmt.Errorf("write the header of %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// padding is how many zeros follow a member.
func padding(size int64) int64 { return -size & (blockSize - 1) }

// parseHeader reads the block before a member, and refuses any that header does not write.
func parseHeader(block []byte) (name string, size int64, err error) {
	text := func(from, length int) string {
		s, _, _ := strings.Cut(string(block[from:from+length]), "\x00")
		return s
	}
	name = text(0, 100)
	size, err = strconv.ParseInt(text(124, 12), 8, 64)
	if err != nil || name == "" || size < 0 {
		return "", 0, ErrDamaged
	}
	want, err := header(name, size)
	if err != nil || !bytes.Equal(block, want) {
		return "", 0, ErrDamaged
	}
	return name, size, nil
}

// chunkName names the member of a chunk.
func chunkName(table string, n int) string { return table + "/" + strconv.Itoa(n) + chunkSuffix }

// parseChunkName is its reverse.
func parseChunkName(name string) (table string, n int, ok bool) {
	table, rest, ok := strings.Cut(name, "/")
	number, suffixed := strings.CutSuffix(rest, chunkSuffix)
	n, err := strconv.Atoi(number)
	return table, n, ok && suffixed && err == nil && n >= 0 && chunkName(table, n) == name
}
