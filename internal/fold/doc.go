// Package fold turns what is known of a task into its attempts and its row.
//
// What is known is a set of marks: life-cycle facts that agents reported. [Fold] is a pure function of that set and of
// the brain's guesses, so that order, repetition and splitting into batches change nothing. A [History] is the set in the
// compact form that is kept with the task; it holds no payloads. The way of a batch is:
//
//	var h fold.History
//	guesses, err := h.Decode(engine, taskID, blob) // blob nil: a new task
//	before := fold.Fold(&h, guesses)
//	added := h.Add(&mark)                          // for each report; says what to write
//	after := fold.Fold(&h, guesses)
//	blob = h.Append(nil, guesses)
//
// Then the event rows are the marks that were new, the attempt rows are what [DiffAttempts] names, and the rollups are
// the [Difference] of the two results' [Contributions].
//
// Payloads stand where the result says: that of a mark in SidePayloads in a side row, else in the row of the one attempt
// that PayloadOf names. So for each mark in after's SidePayloads that before's lacked, the payload comes with the batch or
// out of that row; rows of marks no longer in SidePayloads go away. An attempt's row holds what its method Payload joins.
// It is written anew unless SamePayload holds and no Added.Payload was set for one of its marks.
//
// All times are µs since the epoch, 0 for unknown. Durations and counts of a result are -1 where unknown.
//
// # Rules
//
// A mark is (kind, time as sent, worker). Marks are walked in order time: the time as sent, less its clock's lead over
// receipt where that is above 5 s; at one time in the order of the kinds, then of the workers. A started opens an
// attempt. An end closes one of its worker, or is a copy, or makes an attempt whose start was lost, or is hearsay. A
// revoked is an end until a real one is heard. Guesses end an attempt when it began, so that everything real wins.
//
// # Where two readings were possible
//
// In each case the one was taken that depends on no order of arrival.
//
//   - A report without a worker and one of that kind and time with one are one mark, but each has its own key, event row
//     and place in the history, and the first is noted as a copy. Of several workers it joins the least by name.
//   - Of two values of one mark the longer text wins, then the greater; of numbers the greater; of yes and no the yes. Of
//     the descriptive fields the history knows length and beginning only: see textRank.
//   - Marks whose worker or sender is unknown are never taken for stamps of several senders on one event. What several
//     senders stamped has the earliest of their times.
//   - The lead of a clock is that of the worker; of marks without one, that of the process that reported them.
//   - A mark without a time has its earliest receive time in the walk. It is bounded by its event id, and describes the
//     task only where no mark with a time does, because its receive time may yet change.
//   - Joined ends (rule 3) keep the time of the first; a retried within a second after what looked like hearsay shows that
//     its sender ran the task, and both are one attempt.
//   - Only received is counted as a delivery; sent takes its place in all else where no received was heard.
//   - A revoked that names a worker without an open attempt, while others are open, changes nothing. For a revoked an
//     attempt that is lost is not open.
//   - Waits, and what "the attempt before" is for them, go by order time, even where retries give other numbers. The
//     retries of a delivery are never those of an attempt whose start was lost: it may be the next one's.
//   - A failure or a loss counts as a retry if a later attempt, up to the one that decides, followed.
//   - A lost attempt has no finished_at; hearsay gives it the time of the report, but it still counts as ended when it
//     began, and as lost in the rollups.
//   - What the bound dropped is in no number: attempts are numbered and counted from what is kept.
package fold
