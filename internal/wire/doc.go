// Package wire speaks the protocol between agents and the brain, version 2: it signs, verifies and reads frames.
//
// A connection starts with an unsigned hello and hello_ack (ParseHello, HelloAck). What follows is signed: a Session
// holds the secret and the three ids that both ends mix into every signature, numbers what it signs and refuses what
// it has seen. Frames are verified over their canonical form (Canonical), which is computed from the raw text in one
// pass; the payload stays raw JSON, and Members, Events, ParseHeartbeat and ParseStatus read from it what is wanted.
//
// Nothing here keeps the time, reads the environment or knows a database. Randomness comes from crypto/rand unless
// another source is given.
//
// # Text that is not Unicode
//
// Frames may hold invalid UTF-8 or escapes of lone surrogates, correctly signed. A signature is checked over the bytes
// as they came: an invalid byte stands in the canonical form as it is, a lone surrogate as the three bytes that UTF-8
// would have for it. Whoever reads such a text gets U+FFFD in its place (String, Clean), and that reading depends on
// nothing but the signed bytes. What the brain itself signs is always valid; Canonical and Sign refuse the rest.
// A number too large for a float64 is treated alike: signed as it is spelled, kept as it is spelled.
package wire
