package rotator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/keyring"
)

// maxVersions bounds how many writes freezing and keyturn accept make to get past
// the store's versions that were seen before a restore. Who is farther behind has
// another store before him, where those versions mean nothing.
const maxVersions = 100_000

// freeze writes the mark of this replica over a manifest that is not the one it
// has seen, so that no other plans on it: one that lost its mark would take it
// for the newest. why goes on to the alarms. A process that is alone with its
// store has nobody to warn, and nothing to gain from a write over what is damaged.
//
// A crash before the write leaves it to the next tick; one after it leaves the
// manifest frozen.
func (l *loop) freeze(ctx context.Context, stored *keyring.Snapshot, version int, mark keyring.Mark, why error) error {
	switch {
	case !l.cfg.Advance:
		return why
	case l.file.SingleProcess && l.mark.snapshot != nil:
		return fmt.Errorf("%w; keyturn accept %s puts back the one that this process has seen", why, l.file.Name)
	case l.file.SingleProcess:
		return why
	}
	next := keyring.Freeze(stored, l.mark.snapshot, mark, l.file.Name, why.Error()+"; on the replica that has seen most, keyturn accept puts its manifest back", rand.Text(), l.guard.now().Wall)
	highest := mark.StoreVersion
	if stored != nil && stored.Frozen != nil && stored.Frozen.Lineage == stored.Lineage {
		highest = max(highest, stored.Frozen.StoreVersion)
	}
	if stored != nil && stored.Lineage != mark.Lineage { // the versions of another store mean nothing here
		highest = 0
	}
	switch {
	case next == nil && version > highest:
		return why
	case next == nil: // frozen, but a write of before the restore could still fit
		next = again(stored)
	}
	switch err := l.insist(ctx, next, version, highest); {
	case errors.Is(err, keyring.ErrConflict):
		return keyring.ErrConflict // somebody wrote: look again
	case err != nil:
		l.failed("freeze", err)
		return fmt.Errorf("%w; and it could not be frozen: %w", why, err)
	}
	l.log.Error("manifest frozen", "generation_seen", mark.Generation, "lineage", mark.Lineage, "reason", why)
	if l.cfg.OnEvent != nil {
		l.cfg.OnEvent(l.file.Name, keyring.Event{Kind: keyring.ManifestFrozen})
	}
	return why
}

// again is a manifest to be written once more.
func again(s *keyring.Snapshot) *keyring.Snapshot {
	next := s.Clone()
	next.Generation++
	next.WriteID = rand.Text()
	return next
}

// insist writes a frozen manifest once, and until the store's version is past
// every one that was seen.
func (l *loop) insist(ctx context.Context, frozen *keyring.Snapshot, version, highest int) error {
	if highest < version || highest-version > maxVersions {
		highest = version
	}
	_, _, err := l.pass(ctx, frozen, version, highest+1)
	return err
}

// pass writes a frozen manifest, each time as the next generation, until the
// store has issued a version: a write that was on its way before a restore, with
// the check-and-set of then, must not fit any more. It returns the version that
// stands there and what would be written next.
func (l *loop) pass(ctx context.Context, frozen *keyring.Snapshot, version, upTo int) (int, *keyring.Snapshot, error) {
	for version < upTo {
		written, err := l.cfg.Store.Save(ctx, l.file.Name, frozen, version)
		if err != nil {
			return version, frozen, err
		}
		version, frozen = written, again(frozen)
	}
	return version, frozen, nil
}

// acceptKnown carries out keyturn accept: it commits this replica's last
// manifest as the next generation, past every version that the store has ever
// issued. Until the last write the manifest is frozen, so that nobody plans on
// what is half done, and a crash leaves it to another keyturn accept.
func (l *loop) acceptKnown(ctx context.Context, force, dryRun bool) (keyring.Acceptance, error) {
	asked := l.guard.now()
	stored, version, err := l.cfg.Store.Load(ctx, l.file.Name)
	if answered(stored, err) {
		l.guard.read(asked, l.skew())
	}
	if why := l.guard.doubt(l.skew()); why != "" {
		return keyring.Acceptance{}, fmt.Errorf("%w: %s", keyring.ErrUnavailable, why)
	}
	switch {
	case errors.Is(err, keyring.ErrNoManifest), errors.Is(err, keyring.ErrCorrupt):
		stored = nil
	case err != nil:
		l.failed("load", err)
		return keyring.Acceptance{}, err
	}
	halves := map[string][]string{}
	for name, custody := range l.cfg.Halves {
		if halves[name], err = custody.List(ctx, l.file.Name); err != nil {
			l.failed("list", err)
			return keyring.Acceptance{}, fmt.Errorf("list private halves in %s: %w", name, err)
		}
	}
	known := l.mark.snapshot
	a, err := keyring.Accept(known, stored, halves, force, rand.Text(), l.guard.now().Wall)
	if err != nil || dryRun {
		return a, err
	}
	if version, err = l.passVersions(ctx, known, stored, a.Next, version); err != nil {
		return keyring.Acceptance{}, err
	}
	if err := l.write(ctx, a.Next, version); err != nil {
		return keyring.Acceptance{}, err
	}
	l.log.Warn("manifest accepted", "generation", a.Next.Generation, "retired", a.Retired, "dropped", a.Dropped, "destroyed", a.Destroyed)
	if l.cfg.OnEvent != nil {
		l.cfg.OnEvent(l.file.Name, keyring.Event{Kind: keyring.ManifestAccepted})
	}
	l.accept(a.Next)
	return a, nil
}

// passVersions writes frozen manifests until the next version is one that the
// store has never issued. next moves on past each of them.
func (l *loop) passVersions(ctx context.Context, known, stored, next *keyring.Snapshot, version int) (int, error) {
	highest := known.StoreVersion
	if stored != nil {
		highest = max(highest, stored.StoreVersion)
		if stored.Frozen != nil {
			highest = max(highest, stored.Frozen.StoreVersion)
		}
	}
	if l.file.SingleProcess || highest-version > maxVersions {
		return version, nil
	}
	held, m := next.Clone(), keyring.MarkOf(known)
	held.WriteID = rand.Text()
	held.Frozen = &keyring.Frozen{At: next.WrittenAt, Reason: "keyturn accept is under way; run it again if it ended early",
		Lineage: m.Lineage, Generation: m.Generation, StoreVersion: highest}
	version, held, err := l.pass(ctx, held, version, highest)
	if err != nil {
		l.failed("save", err)
		return 0, err
	}
	next.Generation = held.Generation
	return version, nil
}

// write saves a manifest with the version that the store gives it.
func (l *loop) write(ctx context.Context, next *keyring.Snapshot, version int) error {
	if !l.file.SingleProcess {
		next.StoreVersion = version + 1
	}
	if _, err := l.cfg.Store.Save(ctx, l.file.Name, next, version); err != nil {
		if !errors.Is(err, keyring.ErrConflict) {
			l.failed("save", err)
		}
		return err
	}
	return nil
}
