package rotator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyturn/keyturn/internal/crashpoint"
	"github.com/keyturn/keyturn/keyring"
)

// maxPasses bounds the plan-and-save rounds of one tick: to found an issuer
// takes four, the rest is for conflicts. What is left waits for the next tick.
const maxPasses = 12

var (
	// errBehind: the stored manifest is older than one that was seen, or of
	// another lineage. Acting on it could bring back a revoked key.
	errBehind = errors.New("the stored manifest is not the one that was seen before")
	// errLost: there is no manifest, and there are signs that there was one.
	errLost = errors.New("the manifest is missing")
)

// reconcile loads, plans and saves until there is nothing more to do now.
func (l *loop) reconcile(ctx context.Context, cmd *command) (keyring.Outcome, error) {
	if cmd.open() && cmd.accept {
		a, err := l.acceptKnown(ctx, cmd.force, cmd.dryRun)
		cmd.reply(answer{acceptance: a, err: err})
	}
	var gone []string
	for pass := range maxPasses {
		s, version, err := l.load(ctx)
		if errors.Is(err, keyring.ErrConflict) { // another replica wrote while this one looked, or the read was stale
			if err := l.pause(ctx, pass); err != nil {
				return keyring.Outcome{}, err
			}
			continue
		}
		if err != nil {
			if ctx.Err() == nil {
				cmd.fail(fmt.Errorf("%w: %w", keyring.ErrNothingDone, err))
			}
			return keyring.Outcome{}, err
		}
		if !l.cfg.Advance {
			return l.readOnly(s), l.waitForFounder(s)
		}
		cmd.settle(s)
		in := l.input(ctx, s, gone, cmd)
		if cmd.answerPlanned(s, in) {
			in.Command = keyring.Command{} // a dry run or a refusal: the rest of the plan goes on
		}
		out := l.plan(ctx, s, in)
		if l.orphans.failed != nil {
			out.Alarms = append(out.Alarms, *l.orphans.failed)
		}
		if out.Next != nil {
			switch err := l.save(ctx, out, version); {
			case errors.Is(err, keyring.ErrConflict):
				l.log.Info("another replica wrote first", "generation", out.Next.Generation)
				if err := l.pause(ctx, pass); err != nil {
					return out, err
				}
				gone = nil
				continue // drop everything, plan again from what is stored
			case err != nil:
				return out, err
			}
			cmd.answerSaved(s, out)
			gone = nil
			continue
		}
		if gone = l.destroy(ctx, out.Destroy); len(gone) == 0 {
			return out, nil
		}
	}
	return keyring.Outcome{Wake: l.guard.now().Wall}, nil
}

// pause waits a little before a conflict is tried again: replicas that are due
// at the same instant would meet again.
func (l *loop) pause(ctx context.Context, pass int) error {
	longest := int64(20*time.Millisecond) << min(pass, 5)
	return l.sleep(ctx, time.Duration(l.jitter.Int64N(longest)))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return keyring.ErrUnavailable
	case <-time.After(d):
		return nil
	}
}

// load reads the manifest, refuses to go back in time, and hands a new
// snapshot on. It returns nil where the issuer has none and may be founded. What
// is not the manifest that was seen is frozen, and nobody counts that as read.
func (l *loop) load(ctx context.Context) (*keyring.Snapshot, int, error) {
	asked := l.guard.now()
	s, version, err := l.cfg.Store.Load(ctx, l.file.Name)
	if answered(s, err) {
		l.guard.read(asked, l.skew())
	}
	mark := keyring.MarkOf(l.mark.snapshot)
	switch {
	case errors.Is(err, keyring.ErrNoManifest):
		return nil, 0, l.mayFound(ctx)
	case errors.Is(err, keyring.ErrSchema) && s != nil: // readable: served, not written
	case errors.Is(err, keyring.ErrCorrupt):
		l.failed("load", err)
		return nil, 0, l.freeze(ctx, nil, version, mark, err)
	case err != nil:
		l.failed("load", err)
		return nil, 0, err // the store says what it did
	}
	if s.Frozen != nil {
		err := l.freeze(ctx, s, version, mark, errors.New("a replica has seen a newer manifest than the one that is frozen"))
		if errors.Is(err, keyring.ErrConflict) {
			return nil, 0, err
		}
		return s, version, nil
	}
	if err := l.mark.check(s); err != nil {
		return nil, 0, l.freeze(ctx, s, version, mark, err)
	}
	l.accept(s)
	return s, version, nil
}

// answered reports whether the store spoke, whatever it said.
func answered(s *keyring.Snapshot, err error) bool {
	return err == nil || s != nil || errors.Is(err, keyring.ErrNoManifest) || errors.Is(err, keyring.ErrCorrupt)
}

// mayFound reports why an issuer without a manifest must not be founded: it
// was there before.
func (l *loop) mayFound(ctx context.Context) error {
	if m := l.mark.snapshot; m != nil {
		return l.freeze(ctx, nil, 0, keyring.MarkOf(m), fmt.Errorf("%w, and this replica has seen generation %d of it", errLost, m.Generation))
	}
	mark, where, err := l.cfg.Published(ctx, l.file.Name)
	if err != nil {
		return fmt.Errorf("look for a set that was published before: %w", err)
	}
	if mark.Lineage != "" {
		return l.freeze(ctx, nil, 0, mark, fmt.Errorf("%w, but %s holds a set of generation %d that was made of it: restore the manifest; or, if nothing may verify with that set any more, remove it and start again", errLost, where, mark.Generation))
	}
	for name, halves := range l.cfg.Halves {
		kids, err := halves.List(ctx, l.file.Name)
		if err != nil {
			l.failed("list", err)
			return fmt.Errorf("list private halves in %s: %w", name, err)
		}
		if len(kids) == 0 {
			continue
		}
		// Another replica may have founded the issuer since: halves that exist
		// while there still is no manifest are the proof.
		if _, _, err := l.cfg.Store.Load(ctx, l.file.Name); !errors.Is(err, keyring.ErrNoManifest) {
			return keyring.ErrConflict
		}
		return l.freeze(ctx, nil, 0, keyring.Mark{}, fmt.Errorf("%w, but %d private halves of the issuer exist in %s: restore the manifest; or, if nothing may verify with them any more, delete them and start again", errLost, len(kids), name))
	}
	return nil
}

// accept hands on a snapshot that is newer than the last: first the mark, so
// that a crash right after cannot forget what others may already have acted on.
// What the store shows first also replaces a mark of the same generation that
// says something else.
func (l *loop) accept(s *keyring.Snapshot) {
	l.mu.Lock()
	forged := l.readAt.IsZero() && l.mark.isForged(s)
	newer := forged || l.snapshot == nil || s.Generation > l.snapshot.Generation
	l.readAt = l.guard.now().Wall
	if newer {
		l.snapshot = s
	}
	l.mu.Unlock()
	if !newer {
		return
	}
	if forged {
		l.mark.differed = s.Generation
	}
	l.keepMark(s)
	crashpoint.Here("accept.marked")
	l.cfg.Accept(l.file.Name, s)
}

// keepMark raises the mark; the alarm says it where that failed.
func (l *loop) keepMark(s *keyring.Snapshot) {
	if err := l.mark.keep(s); err != nil {
		l.failed("mark", err)
	}
}

// readOnly tells a replica that does not plan what nobody may plan on.
func (l *loop) readOnly(s *keyring.Snapshot) keyring.Outcome {
	if s == nil || (s.Frozen == nil && s.Schema == keyring.Schema) {
		return keyring.Outcome{}
	}
	return keyring.Plan(s, keyring.Input{Now: l.guard.now().Wall})
}

// waitForFounder is the error of a replica that may not found an issuer itself.
func (l *loop) waitForFounder(s *keyring.Snapshot) error {
	if s == nil {
		return fmt.Errorf("issuer %q has no manifest yet: a replica with the role rotator founds it: %w", l.file.Name, keyring.ErrUnavailable)
	}
	return nil
}

// observed is what a plan is told that takes no I/O.
func (l *loop) observed() keyring.Input {
	issuer := l.file.Name
	in := keyring.Input{
		File: l.file, NextRun: l.schedules.next, Publishes: l.cfg.Publishes,
		Seen: l.cfg.Confirmed(issuer), Damaged: l.cfg.Damaged(issuer), Foreign: l.cfg.Foreign(issuer), ClockDoubt: l.guard.doubt(l.skew()),
	}
	in.Now = l.guard.now().Wall // last: nothing that was observed is of its future
	return in
}

func (l *loop) input(ctx context.Context, s *keyring.Snapshot, gone []string, cmd *command) keyring.Input {
	in := l.observed()
	in.WriteID, in.Lineage, in.Gone = rand.Text(), rand.Text(), gone
	if cmd.open() {
		in.Command = cmd.cmd
	}
	if s != nil {
		in.Others = s.WriteID != l.wrote && !l.file.SingleProcess
		in.Orphans, in.Damaged = l.search(ctx, s, in.Now, in.Damaged)
	}
	return in
}

// plan asks keyring, deposits the halves that it wants, and asks again with
// them, on the same snapshot: a crash after a deposit leaves an orphan, which
// is swept.
func (l *loop) plan(ctx context.Context, s *keyring.Snapshot, in keyring.Input) keyring.Outcome {
	out := keyring.Plan(s, in)
	if len(out.Create) == 0 {
		return out
	}
	for _, r := range out.Create {
		jwk, handle, err := l.create(ctx, r)
		if err != nil {
			l.failed("create", err)
			// What the plan does besides does not wait for a key.
			out.Alarms = append(out.Alarms, keyring.Alarm{Code: "key_not_created", Issuer: l.file.Name, Ring: r.Name,
				Message: fmt.Sprintf("no new key for ring %q: %v", r.Name, err), Since: in.Now})
			continue
		}
		in.Fresh = append(in.Fresh, keyring.Fresh{Ring: r.Name, JWK: jwk, Custody: r.Custody, Handle: handle})
		crashpoint.Here("create.deposited")
	}
	if len(in.Fresh) == 0 {
		return out
	}
	alarms := out.Alarms
	in.Now, in.ClockDoubt = l.guard.now().Wall, l.guard.doubt(l.skew()) // generation may have taken seconds
	out = keyring.Plan(s, in)
	for _, a := range alarms {
		if a.Code == "key_not_created" {
			out.Alarms = append(out.Alarms, a)
		}
	}
	return out
}

func (l *loop) create(ctx context.Context, r keyring.Ring) (keyring.JWK, string, error) {
	halves, ok := l.cfg.Halves[r.Custody]
	if !ok {
		return keyring.JWK{}, "", fmt.Errorf("this process has no custody %q: %w", r.Custody, keyring.ErrUnavailable)
	}
	return halves.Create(ctx, l.file.Name, r.Algorithm, r.RSABits)
}

// save commits a plan. After a crash here any replica goes on from what is stored.
func (l *loop) save(ctx context.Context, out keyring.Outcome, version int) error {
	crashpoint.Here("save.before")
	if err := l.write(ctx, out.Next, version); err != nil {
		return err
	}
	l.wrote = out.Next.WriteID
	for _, e := range out.Events {
		crashpoint.Here("saved." + string(e.Kind))
		l.logEvent(ctx, out.Next.Generation, e)
		if l.cfg.OnEvent != nil {
			l.cfg.OnEvent(l.file.Name, e)
		}
	}
	l.accept(out.Next)
	return nil
}

// logEvent tells what was committed. A lease is renewed all the time; that it
// is not would be news.
func (l *loop) logEvent(ctx context.Context, generation uint64, e keyring.Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case keyring.LeaseRenewed:
		level = slog.LevelDebug
	case keyring.KeyDamaged: // somebody took or wrote what is the custody's alone
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.Uint64("generation", generation)}
	for _, a := range []slog.Attr{slog.String("ring", e.Ring), slog.String("kid", e.Kid), slog.String("target", e.Target)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	l.log.LogAttrs(ctx, level, string(e.Kind), attrs...)
}

// destroy destroys halves that a stored snapshot shows closed and returns the
// kids of those that are gone. The others are tried again at the next tick.
func (l *loop) destroy(ctx context.Context, halves []keyring.Half) []string {
	var gone []string
	for _, h := range halves {
		if err := l.destroyHalf(ctx, h); err != nil {
			l.failed("destroy", err)
			l.log.Warn("private half is not destroyed yet", "kid", h.Kid, "error", err)
			continue
		}
		gone = append(gone, h.Kid)
	}
	return gone
}

// destroyHalf destroys a half where it is; of an orphan the custody is not
// known, so all that this process has.
func (l *loop) destroyHalf(ctx context.Context, h keyring.Half) error {
	if _, ok := l.cfg.Halves[h.Custody]; h.Custody != "" && !ok {
		return fmt.Errorf("this process has no custody %q: %w", h.Custody, keyring.ErrUnavailable)
	}
	var errs []error
	for name, custody := range l.cfg.Halves {
		if h.Custody == "" || h.Custody == name {
			errs = append(errs, custody.Destroy(ctx, l.file.Name, h.Handle))
		}
	}
	return errors.Join(errs...)
}

func (l *loop) failed(op string, err error) {
	if l.cfg.OnError != nil {
		l.cfg.OnError(op, err)
	}
}
