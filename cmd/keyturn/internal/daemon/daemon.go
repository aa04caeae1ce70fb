package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/configs"
)

// Options is what Run takes.
type Options struct {
	Config *configs.Config
	// Reload reads the configuration again, at SIGHUP and when it has changed;
	// nil never does.
	Reload func() (*configs.Config, error)
	Logger *slog.Logger
	// Level is what a reload of log.level sets; nil where it cannot change.
	Level *slog.LevelVar
	// Version is shown by metrics and the admin socket.
	Version string
	// Scratch is a folder that is removed when the daemon has ended, by this
	// process; "" for none.
	Scratch string
	// Ready is called once, when the daemon can sign for every ring and
	// publishes every set, as far as its roles go.
	Ready func()
}

// Run builds the daemon, opens its sockets and runs it until ctx ends; then it
// drains and returns nil. It fails where the configuration cannot be obeyed:
// before anything is listened on, where that can be known.
func Run(ctx context.Context, o Options) error {
	tune()
	d, err := build(o)
	if err != nil {
		return err
	}
	defer d.close()
	fronts, err := d.listen()
	if err != nil {
		return err
	}
	if err := d.confine(); err != nil {
		return err
	}
	return d.run(ctx, fronts)
}

// part is something that lives: it blocks until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// run starts the parts from the back to the front and ends them from the front
// to the back: listeners drain while keys can still be used, and the session
// with Vault ends last, since everything needs it.
func (d *daemon) run(ctx context.Context, fronts []part) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	back := newStage(ctx, cancel, d.backs)
	middle := newStage(ctx, cancel, d.middles)
	// The publisher ends with the listeners: it reads its endpoint back through
	// one, and that this has closed is no fault.
	front := newStage(ctx, cancel, append(fronts, part{"publisher", d.publisher.Run},
		d.patient("reload", d.reloads), d.patient("audit log", d.keepAudit), part{"sockets", d.lookAtSockets}, part{"ready", d.awaitReady}))
	d.log.Info("started", "version", d.options.Version, "config", d.options.Config)

	<-ctx.Done()
	d.stopping.Store(true)
	d.log.Info("stopping")
	err := errors.Join(front.end(), middle.end(), back.end())
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	d.log.Info("stopped")
	return err
}

// stage is a set of parts that end together.
type stage struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

// newStage starts parts on a context of their own: ctx ending does not end
// them, end does. A part that fails fails the whole daemon.
func newStage(ctx context.Context, fail context.CancelCauseFunc, parts []part) *stage {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &stage{cancel: cancel}
	for _, p := range parts {
		s.wg.Go(func() {
			if err := p.run(own); err != nil {
				err = fmt.Errorf("%s: %w", p.name, err)
				if own.Err() == nil {
					fail(err)
					return
				}
				s.mu.Lock()
				s.errs = append(s.errs, err)
				s.mu.Unlock()
			}
		})
	}
	return s
}

func (s *stage) end() error {
	s.cancel()
	s.wg.Wait()
	return errors.Join(s.errs...)
}

// awaitReady tells when everything that this process does can be done.
func (d *daemon) awaitReady(ctx context.Context) error {
	if d.options.Ready == nil {
		return nil
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if d.ready(now) {
				d.options.Ready()
				return nil
			}
		}
	}
}

func (d *daemon) ready(now time.Time) bool {
	if d.signer != nil && len(d.signer.Ready(now)) > 0 {
		return false
	}
	if d.publisher != nil {
		for _, issuer := range d.issuers {
			for _, s := range d.publisher.Status(issuer.Name) {
				if s.Required && s.ReadBackAt.IsZero() {
					return false
				}
			}
		}
	}
	return true
}
