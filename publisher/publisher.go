package publisher

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// Publisher brings key sets to their targets and reads them back. All its
// methods may be called at any time, from any goroutine.
type Publisher struct {
	issuers map[string]*issuer
	targets []*target // all of them, sorted by issuer and name
	routes  map[string]route
	retry   time.Duration
	log     *slog.Logger
}

// issuer is what the targets of one issuer share.
type issuer struct {
	latest  atomic.Pointer[keyring.Snapshot]
	targets []*target
}

// Status is how one target stands.
type Status struct {
	Name     string
	Kind     keyring.TargetKind
	Location string
	Required bool
	// Generation is that of the set which was last read back; 0 where nothing
	// says it.
	Generation uint64
	ReadBackAt time.Time
	// ServeUntil is how long this replica goes on serving what is there; zero
	// for what others serve.
	ServeUntil time.Time
	// Behind are the keys of the set that the last read-back missed, sorted.
	Behind []string
	// Err is what is wrong with the target, nil if nothing is.
	Err error
}

// New checks a configuration and builds a publisher. It touches nothing and
// starts nothing.
func New(cfg Config) (*Publisher, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	cfg.Interval = cmp.Or(cfg.Interval, DefaultInterval)
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, string, bool) {}
	}
	if cfg.Read == nil {
		cfg.Read = func(string) (*keyring.Snapshot, time.Time) { return nil, time.Time{} }
	}
	if cfg.Drifted == nil {
		cfg.Drifted = func(string, string) {}
	}
	p := &Publisher{
		issuers: map[string]*issuer{},
		routes:  map[string]route{},
		retry:   cfg.Interval,
		log:     cfg.Logger,
	}
	for _, is := range cfg.Issuers {
		built := &issuer{}
		p.issuers[is.Name] = built
		for _, t := range is.Targets {
			place, location, err := p.place(&cfg, is, t)
			if err != nil {
				return nil, fmt.Errorf("publisher: target %s of issuer %s: %w", t.Name, is.Name, err)
			}
			built.targets = append(built.targets, &target{
				cfg: &cfg, issuerName: is.Name, issuer: built, conf: t, place: place, location: location,
				kick: make(chan struct{}, 1),
				log:  cfg.Logger.With("issuer", is.Name, "target", t.Name),
			})
		}
		slices.SortFunc(built.targets, func(a, b *target) int { return strings.Compare(a.conf.Name, b.conf.Name) })
		p.targets = append(p.targets, built.targets...)
	}
	slices.SortFunc(p.targets, func(a, b *target) int {
		return cmp.Or(strings.Compare(a.issuerName, b.issuerName), strings.Compare(a.conf.Name, b.conf.Name))
	})
	return p, nil
}

// place builds what a target's goroutine works on, and routes what is served.
func (p *Publisher) place(cfg *Config, is Issuer, t Target) (place, string, error) {
	switch t.Kind {
	case keyring.TargetFile:
		f, err := newFile(is.Name, t)
		if err != nil {
			return nil, "", err
		}
		return f, f.path, nil
	case keyring.TargetHTTP:
		e, err := newEndpoint(cfg, is, t)
		if err != nil {
			return nil, "", err
		}
		p.route(is, t, e)
		return e, publicURL(is.URL, t.path(is)), nil
	default:
		return newConfirm(cfg.Roots, t), t.ConfirmURL, nil
	}
}

// Accept hands a snapshot on to the issuer's targets. It never blocks: each
// target takes the latest when it comes to it. A snapshot that is older than the
// last one, that is frozen, or of an unknown issuer, changes nothing. One of the
// same generation replaces it: the store's own word, after a mark that was
// tampered with.
func (p *Publisher) Accept(issuer string, s *keyring.Snapshot) {
	is := p.issuers[issuer]
	if is == nil || s == nil || s.Frozen != nil {
		return
	}
	for {
		old := is.latest.Load()
		if old != nil && old.Lineage == s.Lineage && old.Generation > s.Generation {
			return
		}
		if is.latest.CompareAndSwap(old, s) {
			break
		}
	}
	for _, t := range is.targets {
		select {
		case t.kick <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// Confirmed holds, by target, what the last read-back showed. A key counts as
// shown where every one of its members was equal to ours, and where the
// target's view leaves it out.
func (p *Publisher) Confirmed(issuer string) map[string]keyring.Observation {
	out := map[string]keyring.Observation{}
	if is := p.issuers[issuer]; is != nil {
		for _, t := range is.targets {
			if seen, ok := t.seen(); ok {
				out[t.conf.Name] = seen
			}
		}
	}
	return out
}

// Foreign holds, by target, the keys of sets that stand there, that keyturn did
// not write, and that it is to take over, until the manifest names them all.
func (p *Publisher) Foreign(issuer string) map[string][]keyring.JWK {
	out := map[string][]keyring.JWK{}
	if is := p.issuers[issuer]; is != nil {
		for _, t := range is.targets {
			if keys := t.foreign(); len(keys) > 0 {
				out[t.conf.Name] = keys
			}
		}
	}
	return out
}

// Status tells how each target of an issuer stands, sorted by name.
func (p *Publisher) Status(issuer string) []Status {
	var out []Status
	if is := p.issuers[issuer]; is != nil {
		for _, t := range is.targets {
			out = append(out, t.status())
		}
	}
	return out
}

// Alarms lists what is not as it should be, sorted by issuer, target and code.
func (p *Publisher) Alarms() []keyring.Alarm {
	var out []keyring.Alarm
	for _, t := range p.targets {
		out = append(out, t.alarms()...)
	}
	return out
}

// Handler is the public handler: it serves the http targets of all issuers.
func (p *Publisher) Handler() http.Handler { return http.HandlerFunc(p.serve) }

// Run keeps the targets as they should be until ctx ends, each in a goroutine
// of its own, so that a slow one stalls nobody. It returns nil when ctx has
// ended and all of them have. What was published stays.
func (p *Publisher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, t := range p.targets {
		wg.Go(func() { t.run(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}
