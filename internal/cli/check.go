package cli

type checkCmd struct{}

// Run x.
func (checkCmd) Run(c *call) error { return nil }

type statusCmd struct{}

// Run x.
func (statusCmd) Run(c *call) error { return nil }
