package rotator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/keyring"
)

// Result tells what a command did, or would do.
type Result struct {
	// Before is the manifest that the command met, After the one that it made
	// or, in a dry run, would make. They are the same where nothing had to be done.
	Before, After *keyring.Snapshot
}

var (
	// ErrUnknownIssuer reports an issuer that this process does not have.
	ErrUnknownIssuer = errors.New("no such issuer")
	errRole          = fmt.Errorf("this process does not have the role rotator: ask one that does: %w", keyring.ErrUnavailable)
)

// Command carries out what an operator asks for, or shows what it would do.
// Errors: *keyring.NotSafeYetError, keyring.ErrUnknownRing, ErrUnknownKey,
// ErrClosed, ErrNoKey; keyring.ErrUnavailable where it cannot be done now, or
// where the outcome is not known.
func (r *Rotator) Command(ctx context.Context, cmd keyring.Command, dryRun bool) (Result, error) {
	l, err := r.find(cmd)
	if err != nil {
		return Result{}, err
	}
	if !l.cfg.Advance {
		return Result{}, errRole
	}
	a := l.do(ctx, command{cmd: cmd, dryRun: dryRun})
	return a.result, a.err
}

// Accept puts this replica's last manifest in the place of one that is frozen,
// lost or corrupt (keyring.Accept). Errors: ErrUnknownIssuer,
// *keyring.LowerMarkError, keyring.ErrNotFrozen, ErrUnavailable, ErrConflict.
func (r *Rotator) Accept(ctx context.Context, issuer string, dryRun, force bool) (keyring.Acceptance, error) {
	l, ok := r.loops[issuer]
	if !ok {
		return keyring.Acceptance{}, fmt.Errorf("issuer %q: %w", issuer, ErrUnknownIssuer)
	}
	if !l.cfg.Advance {
		return keyring.Acceptance{}, errRole
	}
	a := l.do(ctx, command{accept: true, force: force, dryRun: dryRun})
	return a.acceptance, a.err
}

// find is the loop of the issuer that a command is about. Two issuers may have
// adopted one key: then it is the first, by name, that has not revoked it yet,
// so that the order, given again, reaches the next.
func (r *Rotator) find(cmd keyring.Command) (*loop, error) {
	ring := cmd.Rotate
	if ring == "" {
		ring = cmd.RevokeRing
	}
	var done *loop
	for _, name := range slices.Sorted(maps.Keys(r.loops)) {
		l := r.loops[name]
		switch {
		case ring != "" && l.hasRing(ring):
			return l, nil
		case ring == "" && slices.ContainsFunc(cmd.Revoke, l.trustsKey):
			return l, nil // which refuses those of others
		case ring == "" && done == nil && slices.ContainsFunc(cmd.Revoke, l.hasKey):
			done = l
		}
	}
	switch {
	case done != nil:
		return done, nil
	case ring != "":
		return nil, fmt.Errorf("ring %q: %w", ring, keyring.ErrUnknownRing)
	}
	return nil, fmt.Errorf("%s: %w; nothing was revoked", strings.Join(cmd.Revoke, ", "), keyring.ErrUnknownKey)
}

// command is what an operator asked for. A nil one is no command. A revocation
// that is to sign at once becomes a rotation by force when it is stored.
type command struct {
	cmd    keyring.Command
	accept bool // keyturn accept
	force  bool // of keyturn accept; a rotation has its own
	dryRun bool
	answer chan<- answer

	// before is the manifest that the command met, since committed says that a
	// part of it is stored: what follows must not do that part again.
	before    *keyring.Snapshot
	committed *keyring.Snapshot
}

type answer struct {
	result     Result
	acceptance keyring.Acceptance
	err        error
}

func (c *command) open() bool { return c != nil && c.answer != nil }

func (c *command) reply(a answer) {
	if c.open() {
		c.answer <- a // buffered: nobody waits here
		c.answer = nil
	}
}

// fail answers a command that could not be carried out. Of one that is stored
// in part the part is told.
func (c *command) fail(err error) {
	if c.open() && c.committed != nil {
		c.reply(answer{result: Result{c.before, c.committed}})
		return
	}
	c.reply(answer{err: err})
}

// do runs a command on the loop's goroutine.
func (l *loop) do(ctx context.Context, c command) answer {
	reply := make(chan answer, 1)
	c.answer = reply
	select {
	case l.commands <- c:
	case <-l.ended:
		return answer{err: keyring.ErrUnavailable}
	case <-ctx.Done():
		return answer{err: keyring.ErrUnavailable}
	}
	select {
	case a := <-reply:
		return a
	case <-ctx.Done():
		return answer{err: keyring.ErrUnavailable}
	}
}

// answerPlanned answers a command that a plan alone decides, before anything
// is written or deposited for it: a refusal, or a dry run. It reports whether it did.
func (c *command) answerPlanned(s *keyring.Snapshot, in keyring.Input) bool {
	if !c.open() || c.accept {
		return false
	}
	if s == nil {
		c.fail(&keyring.NotSafeYetError{Ring: c.cmd.Rotate})
		return true
	}
	out := keyring.Plan(s, in)
	switch {
	case out.Refused != nil:
		c.fail(out.Refused)
	case out.Halted: // nobody may plan on this manifest; the alarms say why
		err := keyring.ErrNothingDone
		for _, a := range out.Alarms {
			err = fmt.Errorf("%w: %s", err, a.Message)
		}
		c.fail(err)
	case c.dryRun:
		c.reply(answer{result: Result{s, after(s, out)}})
	case out.Next == nil && len(out.Create) == 0: // it is so already
		c.reply(answer{result: Result{s, s}})
	default:
		return false
	}
	return true
}

func after(s *keyring.Snapshot, out keyring.Outcome) *keyring.Snapshot {
	if out.Next != nil {
		return out.Next
	}
	return s
}

// answerSaved answers a command whose plan is committed. A revocation that is
// to sign at once goes on, ring by ring, until somebody signs there: the standby
// has to be stored before it may.
func (c *command) answerSaved(s *keyring.Snapshot, out keyring.Outcome) {
	if !c.open() || s == nil {
		return
	}
	if c.before == nil {
		c.before = s
	}
	c.committed = out.Next
	if ring := vacant(c.before, out.Next); ring != "" && c.cmd.Force {
		c.cmd = keyring.Command{Rotate: ring, Force: true}
		return
	}
	c.reply(answer{result: Result{c.before, out.Next}})
}

// settle ends a command of several writes where another replica has brought
// about meanwhile what was left to do.
func (c *command) settle(s *keyring.Snapshot) {
	if c.open() && c.committed != nil && s != nil && vacant(c.before, s) == "" {
		c.reply(answer{result: Result{c.before, s}})
	}
}

// vacant is a ring that has lost its active key to a revocation and has none yet.
func vacant(before, after *keyring.Snapshot) string {
	for _, r := range after.Config.Rings {
		if k := before.Active(r.Name); k == nil || after.Active(r.Name) != nil {
			continue
		}
		return r.Name
	}
	return ""
}
