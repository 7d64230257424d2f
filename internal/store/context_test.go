package store_test

import "context"

// testContext serves helpers that property tests call: a rapid.T has a context of its own that ends too early.
func testContext() context.Context { return context.Background() }
