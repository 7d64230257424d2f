package load

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/id"
)

// engine is what the published agents of an engine tell of a task.
type engine struct {
	name     string
	receipts bool // that a worker received it
	queue    bool // its queue, with every event; Celery's only with the receipt
	worker   bool
	named    bool // its name, with every event; Celery's only with the receipt
	args     bool // with the receipt
	result   bool // and the run time
	retries  bool // a retry is an event of its own
}

// engines are the six that have published agents.
func engines() []engine {
	return []engine{
		{name: "celery", receipts: true, worker: true, args: true, result: true, retries: true},
		{name: "rq", queue: true, worker: true, named: true},
		{name: "dramatiq", receipts: true, queue: true, worker: true, named: true},
		{name: "huey", receipts: true, named: true, args: true, retries: true},
		{name: "arq"},
		{name: "taskiq", receipts: true, named: true, args: true},
	}
}

// EngineNames are the engines that tasks can be of.
func EngineNames() []string {
	var names []string
	for _, e := range engines() {
		names = append(names, e.name)
	}
	return names
}

// DefaultEngines tell three events of a task each.
func DefaultEngines() []string { return []string{"celery", "dramatiq", "huey"} }

func engineOf(name string) (engine, error) {
	all := engines()
	i := slices.IndexFunc(all, func(e engine) bool { return e.name == name })
	if i < 0 {
		return engine{}, fmt.Errorf("there is no engine %q: the engines are %s", name, strings.Join(EngineNames(), ", "))
	}
	return all[i], nil
}

// kind is a sort of task: what tasks of one name have in common.
type kind struct {
	name, queue string
	often       int   // how often, against others
	wait, run   int64 // µs: medians
	fails       int   // of a thousand
}

// kinds are the tasks of an application.
func kinds(app string) []kind {
	const ms = 1000
	list := []kind{
		{"orders.charge_customer", "payments", 30, 25 * ms, 340 * ms, 12},
		{"orders.send_receipt", "mail", 24, 40 * ms, 120 * ms, 4},
		{"catalog.resize_image", "media", 16, 300 * ms, 1900 * ms, 20},
		{"catalog.sync_stock", "default", 14, 30 * ms, 80 * ms, 9},
		{"search.rebuild_index", "slow", 2, 4000 * ms, 45_000 * ms, 35},
		{"reports.export_csv", "slow", 3, 2500 * ms, 12_000 * ms, 28},
		{"hooks.deliver", "default", 20, 20 * ms, 210 * ms, 60},
		{"sessions.expire", "default", 8, 15 * ms, 9 * ms, 1},
	}
	for i := range list {
		list[i].name = app + "." + list[i].name
	}
	return list
}

// reporter is an agent: of one project and one engine, with the engine's workers that it tells of.
type reporter struct {
	project, agent id.ID
	engine         engine
	kinds          []kind
	picks          []int // a kind's index as often as it comes
	workers        []string
	lags           []int64 // µs from a worker's event to its receipt, at the least
}

// apps name the applications of the projects, one after the other.
var apps = [...]string{"shop", "media", "billing", "crm", "search", "ops", "mobile", "partner"}

// newReporter casts the number-th project's agent for an engine.
func newReporter(number int, e engine, workers int) *reporter {
	app := apps[number%len(apps)]
	if number >= len(apps) {
		app = fmt.Sprintf("%s%d", app, number/len(apps))
	}
	r := &reporter{engine: e, kinds: kinds(app)}
	for i, k := range r.kinds {
		for range k.often {
			r.picks = append(r.picks, i)
		}
	}
	for i := range workers {
		r.workers = append(r.workers, fmt.Sprintf("%s@%s-%02d", e.name, app, i+1))
		r.lags = append(r.lags, 2_000+int64(i*i%7)*3_100)
	}
	return r
}

// words is a text to cut notes and descriptions out of: it compresses as such texts do.
func words(seed uint64) []byte {
	const size = 64 << 10
	list := strings.Fields(`order customer invoice payment shipped pending parcel address returned warehouse stock item refund coupon cart
		checkout gift express standard carrier label printed scanned delivered delayed partial complete manual review approved rejected
		retry batch nightly import export region north south east west priority account contact support ticket resolved open note
		discount tax total net gross currency exchange rate updated created by system on behalf of the of for with after before until`)
	random := rand.New(rand.NewPCG(seed, 0x776f726473)) //nolint:gosec // it only has to look like something
	out := make([]byte, 0, size+32)
	for len(out) < size {
		out = append(append(out, list[random.IntN(len(list))]...), ' ')
	}
	return out[:size]
}
