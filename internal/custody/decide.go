package custody

// Standing says what an anchor says of the database.
type Standing int

// The standings, from the best to the worst.
const (
	None    Standing = iota // the anchor has no checkpoint of ours
	Agrees                  // the newest checkpoint's last row is there
	Behind                  // the database ends before it
	Against                 // another row stands in its place
	Unnamed                 // it knows a history that the chain does not name
)

// String names s.
func (s Standing) String() string {
	return [...]string{"none", "agrees", "behind", "against", "unnamed generation"}[s]
}

// Whereabouts says whether the database is where it was.
type Whereabouts int

// The whereabouts.
const (
	Same    Whereabouts = iota
	Other               // it is another one than it says
	Missing             // SQLite: nothing beside it says which one it is
)

// String names w.
func (w Whereabouts) String() string { return [...]string{"same", "other", "missing"}[w] }

// Situation is what is known when a brain starts, when its database comes back, and before it signs a checkpoint.
type Situation struct {
	Place  Whereabouts
	Local  Standing // of the anchor in this home
	Shared Standing // the worst that a readable anchor elsewhere says of a history that the chain names

	Higher bool // Postgres' timeline is higher than at the local anchor's newest checkpoint: a standby was promoted
	Within bool // and what is lost is within the grace

	Lonely bool // Postgres, and no other brain was alive during the last quarter of an hour
}

// Act is what follows from a situation.
type Act int

// The acts.
const (
	GoOn          Act = iota
	BeginAnchor       // there was no local anchor: note it and go on
	Moved             // note the new place and go on
	NewGeneration     // an ordinary failover: go on in a new history, and alert
	HoldChanges
)

// String names a.
func (a Act) String() string {
	return [...]string{"go on", "begin anchor", "moved", "new generation", "hold"}[a]
}

// Decision is an act, and whether what goes out (commands, fires, notifications) waits for `restore release`.
type Decision struct {
	Act   Act
	Await bool
}

// Decide is the table of spec: place, local anchor, then.
func Decide(s Situation) Decision {
	switch {
	case s.Place != Same && s.Local == Agrees:
		return Decision{Act: Moved}
	case s.Place != Same:
		return Decision{Act: HoldChanges} // restored
	case s.Local == Agrees:
		return Decision{Act: GoOn}
	case s.Local == None && (s.Shared == Behind || s.Shared == Against):
		return Decision{Act: HoldChanges}
	case s.Local == None:
		return Decision{Act: BeginAnchor, Await: s.Lonely}
	case s.Higher && s.Within:
		return Decision{Act: NewGeneration}
	}
	return Decision{Act: HoldChanges}
}
