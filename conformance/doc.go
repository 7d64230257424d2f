// Package conformance runs real Celery workers with the published agents against the built binary.
// Its tests need CONFORMANCE=1 and what `make conformance` prepares; anything else they start and stop themselves.
package conformance
