package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/audit/verify"
	"github.com/keyturn/keyturn/configs"
	names "github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/keyring"
)

const (
	// anchorTime bounds one round over all issuers, lastAnchorTime that at the
	// end of the daemon.
	anchorTime     = 30 * time.Second
	lastAnchorTime = time.Second
	// anchorPatience is after how many intervals without success it is an alarm.
	anchorPatience = 10
)

// Codes of the alarms about the audit log and its anchors.
const (
	codeAuditHarmed      = "audit_harmed"
	codeAuditBehind      = "audit_behind"
	codeAuditNotAnchored = "audit_not_anchored"
)

// headStore keeps audit heads by check-and-set.
type headStore interface {
	// LoadHeads returns nil where there are none.
	LoadHeads(ctx context.Context, r names.Replica) (doc []byte, version int, err error)
	SaveHeads(ctx context.Context, r names.Replica, doc []byte, version int) error
}

// errBehind: what is anchored is not in the local log. Nothing is written then:
// it may be the last trace of records that somebody took away.
var errBehind = errors.New("what is anchored is not in the audit log")

// anchors keeps the audit log's newest head beside the manifest of each issuer,
// where who can write the log's file cannot change it. There is one log and it
// is anchored at every issuer: each has its own readers. Signing never waits for it.
type anchors struct {
	log      func() *audit.Log // nil until it could be opened
	store    headStore
	replica  string
	issuers  []string
	interval time.Duration
	logger   *slog.Logger

	// last is what is known to be anchored, by issuer. It is run's alone.
	last map[string]audit.Head

	mu     sync.Mutex
	faults map[string]anchorFault // by issuer; "" is the log itself
}

type anchorFault struct {
	err   error
	since time.Time
}

func (d *daemon) makeAnchors() {
	cfg := d.options.Config
	if !cfg.Has(configs.Signer) && !cfg.Has(configs.Rotator) {
		return
	}
	a := &anchors{
		log: d.ledger.Log, store: d.custody.heads, replica: cfg.Replica, interval: time.Duration(cfg.Audit.AnchorInterval), logger: d.log,
		last: map[string]audit.Head{}, faults: map[string]anchorFault{},
	}
	for _, i := range cfg.Issuers {
		a.issuers = append(a.issuers, i.Name)
	}
	d.anchors = a
	d.middles = append(d.middles, part{"audit anchors", a.Run})
}

// Run anchors from time to time, and once more at the end, when no more tokens
// are signed.
func (a *anchors) Run(ctx context.Context) error {
	tick := time.NewTicker(a.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.end(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			a.round(ctx, anchorTime)
		}
	}
}

// end anchors all that was decided, what the log still counts included.
func (a *anchors) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastAnchorTime)
	defer cancel()
	log := a.log()
	if log == nil {
		return
	}
	if err := log.Flush(ctx); err != nil {
		a.logger.Warn("audit log not written", "error", err) // Close tries it again
	}
	a.round(ctx, lastAnchorTime)
}

func (a *anchors) round(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	log := a.log()
	if log == nil {
		return // an alarm says so
	}
	a.judge(ctx)
	// It is synced first: after a power failure the log still holds what is anchored.
	head, err := log.Head(ctx)
	if err != nil {
		a.logger.Warn("no head of the audit log", "error", err) // who writes to it says so as well
		return
	}
	var wg sync.WaitGroup
	results := make([]anchorResult, len(a.issuers))
	for i, issuer := range a.issuers {
		last := a.last[issuer]
		wg.Go(func() { results[i].head, results[i].err = a.anchor(ctx, issuer, last, head) })
	}
	wg.Wait()
	for i, issuer := range a.issuers {
		if results[i].err == nil {
			a.last[issuer] = results[i].head
		}
		a.note(issuer, results[i].err)
	}
}

// judge looks whether the file in use is whole.
func (a *anchors) judge(ctx context.Context) {
	if a == nil {
		return
	}
	if log := a.log(); log != nil {
		a.note("", log.Harm(ctx))
	}
}

type anchorResult struct {
	head audit.Head
	err  error
}

// anchor puts a head where last is, or says why not. A crash before the save
// leaves the older head, which is in the log as well.
func (a *anchors) anchor(ctx context.Context, issuer string, last, head audit.Head) (audit.Head, error) {
	if last.Same(head) {
		return last, nil // nothing was written since
	}
	place := names.Replica{Issuer: issuer, Name: a.replica}
	doc, version, err := a.store.LoadHeads(ctx, place)
	if err != nil {
		return head, err
	}
	var stored audit.Anchors
	if doc != nil {
		if stored, err = audit.ParseAnchors(doc); err != nil {
			return head, fmt.Errorf("%w: %w", errBehind, err)
		}
	}
	newest, found := stored.Last()
	if found && !newest.Same(last) {
		if err := a.follows(newest, head); err != nil {
			return head, err
		}
	}
	if head.Seq == 0 || found && newest.Same(head) {
		return newest, nil
	}
	if doc, err = stored.With(a.replica, head).Encode(); err != nil {
		return head, err
	}
	return head, a.store.SaveHeads(ctx, place, doc, version)
}

// follows reports where the log does not hold a head that another process
// anchored: one before this, or one that goes by the same name.
func (a *anchors) follows(stored, head audit.Head) error {
	describe := fmt.Sprintf("record %d of chain %s, anchored at %s", stored.Seq, stored.Chain, stored.Time.Format(time.RFC3339))
	switch {
	case stored.Chain != head.Chain:
		return fmt.Errorf("%w: %s; the log is another chain", errBehind, describe)
	case stored.Seq > head.Seq:
		return fmt.Errorf("%w: %s; the log ends at record %d", errBehind, describe, head.Seq)
	}
	holds, known, err := verify.Holds(head.File, stored)
	if err != nil {
		return fmt.Errorf("look for %s: %w", describe, err)
	}
	if known && !holds {
		return fmt.Errorf("%w: %s; the log has another record in its place", errBehind, describe)
	}
	return nil // where it was rotated away, verify finds it
}

// note keeps what went wrong, and logs it once for one cause.
func (a *anchors) note(issuer string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, failing := a.faults[issuer]
	switch {
	case err == nil && failing:
		delete(a.faults, issuer)
		if issuer == "" {
			a.logger.Info("audit log is sound again")
			return
		}
		a.logger.Info("audit log is anchored again", "issuer", issuer)
	case err != nil && (!failing || before.err.Error() != err.Error()):
		if !failing {
			before.since = time.Now()
		}
		a.faults[issuer] = anchorFault{err, before.since}
		if issuer == "" {
			a.logger.Error("audit log was harmed", "error", err)
			return
		}
		a.logger.Warn("audit log not anchored", "issuer", issuer, "replica", a.replica, "error", err)
	}
}

// Alarms are about the log and its anchors. That a store is away for a moment
// is none: the rotator says so.
func (a *anchors) Alarms(now time.Time) (out []keyring.Alarm) {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for issuer, f := range a.faults {
		alarm := keyring.Alarm{Issuer: issuer, Since: f.since}
		switch {
		case issuer == "":
			alarm.Code, alarm.Message = codeAuditHarmed, f.err.Error()
		case errors.Is(f.err, errBehind):
			alarm.Code = codeAuditBehind
			alarm.Message = fmt.Sprintf("%v: the log was cut, replaced or restored, or another daemon is called %q as well; nothing is overwritten, and docs/audit.md says what to do", f.err, a.replica)
		case now.Sub(f.since) < anchorPatience*a.interval:
			continue
		default:
			alarm.Code = codeAuditNotAnchored
			alarm.Message = fmt.Sprintf("the audit log cannot be anchored: %v; it is tried again", f.err)
		}
		out = append(out, alarm)
	}
	slices.SortFunc(out, func(x, y keyring.Alarm) int {
		if x.Issuer < y.Issuer {
			return -1
		}
		return 1
	})
	return out
}
