package load

import (
	"errors"
	"runtime"
	"runtime/debug"
	"time"
)

// Config says what is asked, of whom, and for how long.
type Config struct {
	// Network is unix or tcp (IPv4); Addr a path or host:port.
	Network, Addr string
	// Conns is how many connections are open; each waits for its answer before
	// it asks again.
	Conns int
	// Rate is how many requests a second fall due, at even distances, whether
	// or not the server keeps up: a request that found no free connection waits
	// for one, and its latency counts from when it was due. 0 asks again as soon
	// as an answer is there.
	Rate float64
	// Warmup is not measured; Duration is.
	Warmup, Duration time.Duration
	// Request is sent as it is: one HTTP/1.1 request.
	Request []byte
	// Answer is what to look for in an answer.
	Answer Answer
	// Patient is a hint to the kernel's scheduler that the load need not run the
	// moment an answer comes (SCHED_BATCH): it takes more of them at a time and
	// costs less, but sees each of them later. For rates, not for latencies.
	Patient bool
	// KeepEvery is how often a token is kept for the verification; 0 keeps none.
	KeepEvery int64
	// Tolerate counts refusals and closed connections instead of giving up: for
	// those whom the daemon shall refuse.
	Tolerate bool
	// PID is the server's process, whose processor time is measured; 0 for none.
	PID int
}

// Answer describes one that is right.
type Answer struct {
	// Mark stands before each token, a quotation mark after it.
	Mark string
	// Tokens is how many an answer has.
	Tokens int
	// Dots is how many each token holds: two in a JWT.
	Dots int
}

// Result is what was measured. Times are nanoseconds in JSON.
type Result struct {
	Requests   int64 `json:"requests"`
	Tokens     int64 `json:"tokens"`
	Refused    int64 `json:"refused"`
	Reconnects int64 `json:"reconnects"`
	// Unanswered is what fell due in time and had no answer long after the end.
	Unanswered int64         `json:"unanswered"`
	Elapsed    time.Duration `json:"elapsed_ns"`
	// LoadCPU and ServerCPU is what each process used of the processors.
	LoadCPU   time.Duration `json:"load_cpu_ns"`
	ServerCPU time.Duration `json:"server_cpu_ns"`
	P50       time.Duration `json:"p50_ns"`
	P90       time.Duration `json:"p90_ns"`
	P99       time.Duration `json:"p99_ns"`
	P999      time.Duration `json:"p999_ns"`
	Max       time.Duration `json:"max_ns"`
	Verified  int           `json:"verified"`
	// Kept are tokens to verify. They are secrets of a sort: not written out.
	Kept []string `json:"-"`
}

// Rate is tokens a second.
func (r Result) Rate() float64 { return float64(r.Tokens) / r.Elapsed.Seconds() }

// PerToken is a time divided by the tokens that were made in it, in µs.
func (r Result) PerToken(d time.Duration) float64 {
	return float64(d) / float64(time.Microsecond) / float64(max(r.Tokens, 1))
}

// drainLimit bounds the wait for the last answers of an even rate.
const drainLimit = 10 * time.Second

// Run measures. It belongs into a process of its own: it turns the garbage
// collector off, takes a thread for itself and blocks until the end.
func Run(cfg Config) (Result, error) {
	if cfg.Conns < 1 || cfg.Duration <= 0 || cfg.Answer.Tokens < 1 || cfg.Answer.Mark == "" {
		return Result{}, errors.New("a load needs connections, a duration and an answer to look for")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if cfg.Patient {
		if err := bePatient(); err != nil {
			return Result{}, err
		}
	}
	g, err := newGenerator(cfg)
	if err != nil {
		return Result{}, err
	}
	defer g.close()
	if err := g.run(); err != nil {
		return Result{}, err
	}
	return g.result(), nil
}

// generator is one run.
type generator struct {
	cfg   Config
	poll  poller
	conns []*conn
	idle  []*conn // free connections, of an even rate
	dead  []*conn // to be dialled again
	mark  []byte

	started time.Time
	// Since started: the measured window, and the present.
	from, to, now time.Duration
	measuring     bool

	interval time.Duration // of an even rate
	due      int64         // how many requests have been sent of those that fell due
	inWindow int64         // how many of these are not answered yet, and count

	hist   histogram
	seen   int64 // tokens since the start
	res    Result
	before usage
}

func newGenerator(cfg Config) (*generator, error) {
	poll, err := newPoller(cfg.Conns)
	if err != nil {
		return nil, err
	}
	g := &generator{cfg: cfg, poll: poll, mark: []byte(cfg.Answer.Mark), from: cfg.Warmup, to: cfg.Warmup + cfg.Duration}
	if cfg.Rate > 0 {
		g.interval = time.Duration(float64(time.Second) / cfg.Rate)
	}
	for i := range cfg.Conns {
		c := &conn{index: i, fd: -1, buf: make([]byte, 128<<10)}
		g.conns = append(g.conns, c)
		if err := g.dial(c); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

func (g *generator) close() {
	for _, c := range g.conns {
		c.close()
	}
	g.poll.close()
}

func (g *generator) run() error {
	g.started = time.Now()
	for _, c := range g.conns {
		if err := g.free(c); err != nil {
			return err
		}
	}
	for {
		g.now = time.Since(g.started)
		if !g.measuring && g.now >= g.from {
			if err := g.begin(); err != nil {
				return err
			}
		}
		if g.finished() {
			return g.end()
		}
		if err := g.sendDue(); err != nil {
			return err
		}
		if err := g.redial(); err != nil {
			return err
		}
		ready, err := g.poll.wait(g.patience())
		if err != nil {
			return err
		}
		for _, i := range ready {
			if err := g.readable(g.conns[i]); err != nil {
				return err
			}
		}
	}
}

// finished reports the end. A machine that kept everybody waiting gets until
// the first answer. At an even rate it waits for the answers to what
// fell due in time; those that do not come within drainLimit count with the
// time that they have taken so far.
func (g *generator) finished() bool {
	if g.now < g.to {
		return false
	}
	if g.interval == 0 {
		return g.res.Requests > 0 || g.now >= g.to+drainLimit
	}
	if g.inWindow == 0 && g.dueAt(g.due) >= g.to {
		return true
	}
	if g.now < g.to+drainLimit {
		return false
	}
	for _, c := range g.conns {
		if c.waiting && c.counts {
			g.unanswered(c.began)
		}
	}
	for ; g.dueAt(g.due) < g.to; g.due++ {
		g.unanswered(max(g.dueAt(g.due), g.from))
	}
	return true
}

func (g *generator) unanswered(due time.Duration) {
	g.hist.add(g.now - due)
	g.res.Unanswered++
}

// patience is how long there is nothing to do but to wait for answers.
func (g *generator) patience() time.Duration {
	next := g.to
	if !g.measuring {
		next = g.from
	}
	if g.now >= g.to {
		next = g.to + drainLimit
	}
	if g.interval > 0 && len(g.idle) > 0 && g.dueAt(g.due) < g.to {
		next = min(next, g.dueAt(g.due))
	}
	if len(g.dead) > 0 {
		next = min(next, g.now+redialEvery)
	}
	return max(next-g.now, 0)
}

func (g *generator) dueAt(i int64) time.Duration { return time.Duration(i) * g.interval }

// sendDue sends, at an even rate, what has fallen due and has a connection.
func (g *generator) sendDue() error {
	for g.interval > 0 && len(g.idle) > 0 {
		at := g.dueAt(g.due)
		if at > g.now || at >= g.to {
			return nil
		}
		c := g.idle[len(g.idle)-1]
		g.idle = g.idle[:len(g.idle)-1]
		g.due++
		c.began, c.counts = at, at >= g.from
		if c.counts {
			g.inWindow++
		}
		if err := g.send(c); err != nil {
			return err
		}
	}
	return nil
}

// free is called with a connection that waits for no answer.
func (g *generator) free(c *conn) error {
	if g.interval > 0 {
		g.idle = append(g.idle, c)
		return nil
	}
	c.began = g.now
	return g.send(c)
}

func (g *generator) begin() (err error) {
	g.measuring = true
	if g.interval == 0 {
		g.from = g.now
	}
	g.before, err = used(g.cfg.PID)
	return err
}

func (g *generator) end() error {
	after, err := used(g.cfg.PID)
	if err != nil {
		return err
	}
	g.res.Elapsed = g.now - g.from // at an even rate, to the last answer
	g.res.LoadCPU, g.res.ServerCPU = after.own-g.before.own, after.server-g.before.server
	return nil
}

func (g *generator) result() Result {
	r := g.res
	r.P50, r.P90, r.P99 = g.hist.quantile(0.5), g.hist.quantile(0.9), g.hist.quantile(0.99)
	r.P999, r.Max = g.hist.quantile(0.999), g.hist.max
	return r
}
