package rotator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simStore is the store of one issuer's manifest and private halves.
type simStore struct {
	w *simWorld
	// version is of the stored manifest, 0 for none; its number is what
	// check-and-set compares.
	version simVersion
	// history holds the versions since the last restore, for stale reads.
	history []simVersion
	// writes tells who wrote each version, and out of which history.
	writes []string
	// truth is the newest manifest that was committed by the rules: it stays
	// where the store is restored or damaged, until one is accepted.
	truth *keyring.Snapshot
	// highest is the greatest version that was ever issued.
	highest int
	halves  map[string]simHalf
	// flight are writes whose caller has given up: they land later, or never.
	flight  []simWrite
	backups []simBackup
	// closed and revoked are the kids that a committed manifest has shown so,
	// with its generation; active and orphaned are those that any has shown.
	closed, revoked  map[string]uint64
	active, orphaned map[string]bool
}

type simVersion struct {
	number int
	doc    []byte
	snap   *keyring.Snapshot
	err    error
}

type simHalf struct {
	created time.Time
	damaged bool
}

type simWrite struct {
	next    *keyring.Snapshot
	version int
	by      *simReplica
	accept  bool
	sent    time.Time
	began   time.Time
}

type simBackup struct {
	version simVersion
	halves  map[string]simHalf
	at      time.Time
}

func (s *simStore) init(w *simWorld) {
	s.w, s.halves = w, map[string]simHalf{}
	s.closed, s.revoked, s.active, s.orphaned = map[string]uint64{}, map[string]uint64{}, map[string]bool{}, map[string]bool{}
}

var errSimLost = fmt.Errorf("%w: the reply was lost", keyring.ErrUnavailable)

// reachable says whether a replica can reach the store.
func (s *simStore) reachable(r *simReplica) error {
	switch {
	case r.cut, s.w.faults.storeDown:
		return fmt.Errorf("%w: no route", keyring.ErrUnavailable)
	case s.w.faults.storeSealed:
		return fmt.Errorf("%w: sealed", keyring.ErrUnavailable)
	}
	return nil
}

// read is what Load shows: the stored manifest, or, from a lagging node, an older one.
func (s *simStore) read(stale bool) (*keyring.Snapshot, int, error) {
	v := s.version
	if stale && len(s.history) > 1 {
		v = s.history[len(s.history)-1-s.w.chance.pick(min(4, len(s.history)))]
		s.w.fault("stale read")
	}
	if v.number == 0 {
		return nil, 0, keyring.ErrNoManifest
	}
	return v.snap, v.number, v.err
}

// save is check-and-set. What is stored is held against what was.
func (s *simStore) save(f simWrite) error {
	doc, err := keyring.Encode(f.next)
	if err != nil {
		return err
	}
	if f.version != s.version.number {
		return keyring.ErrConflict
	}
	snap := f.next // immutable, as is what Decode makes of it
	if s.w.decodes {
		if snap, err = keyring.Decode(doc); err != nil {
			s.w.fail("codec", "a manifest was written that cannot be read: %v", err)
		}
	}
	s.w.checkCommit(f, snap)
	s.put(simVersion{number: s.version.number + 1, doc: doc, snap: snap})
	s.writes = append(s.writes, fmt.Sprint(f.by.id, f.by.trace))
	s.w.committed(f, snap)
	return nil
}

func (s *simStore) put(v simVersion) {
	s.version = v
	s.highest = max(s.highest, v.number)
	s.history = append(s.history, v)
	if len(s.history) > 8 {
		s.history = s.history[1:]
	}
}

// forgetAbove drops what only generations said that nobody has ever seen: a
// restore took them away before anybody acted on them.
func (s *simStore) forgetAbove(generation uint64) {
	newer := func(_ string, g uint64) bool { return g > generation }
	for kid, g := range s.revoked {
		if newer(kid, g) {
			delete(s.w.tokens.gone, kid)
			delete(s.w.tokens.mute, kid)
		}
	}
	maps.DeleteFunc(s.closed, newer)
	maps.DeleteFunc(s.revoked, newer)
}

// land lets writes arrive that were on their way.
func (s *simStore) land() {
	if s.w.faults.disturbed {
		return // a restore ends what is on its way, or it comes after keyturn accept
	}
	for i := 0; i < len(s.flight); i++ {
		if s.w.faults.storeDown || s.w.faults.storeSealed || !s.w.chance.one(4) {
			continue
		}
		f := s.flight[i]
		s.flight = slices.Delete(s.flight, i, i+1)
		i--
		err := s.save(f)
		s.w.log("late write of generation %d by %d: %v", f.next.Generation, f.by.id, err)
	}
}

// simCustody is the store as one process of a replica reaches it. Every call
// hands control back to the scheduler, before it happens and before it returns.
type simCustody struct{ r *simReplica }

func (c simCustody) Load(_ context.Context, _ string) (*keyring.Snapshot, int, error) {
	r := c.r
	var snap *keyring.Snapshot
	var version int
	var stale bool
	err := r.call("load", func() (string, error) {
		stale = r.w.climate.saves && !r.w.healing && r.w.chance.one(12)
		var err error
		snap, version, err = r.w.store.read(stale)
		return fmt.Sprint(version), err
	})
	if !stale && (err == nil || errors.Is(err, keyring.ErrSchema)) {
		r.readAt = r.asked
	}
	if errors.Is(err, keyring.ErrUnavailable) {
		return nil, 0, err
	}
	return snap, version, err
}

func (c simCustody) Save(_ context.Context, _ string, next *keyring.Snapshot, version int) (int, error) {
	r := c.r
	err := r.call("save", func() (string, error) {
		return "", r.w.store.save(simWrite{next: next, version: version, by: r, accept: r.accepting, sent: r.w.now, began: r.began})
	}, simWrite{next: next, version: version, by: r, accept: r.accepting, sent: r.w.now, began: r.began})
	if err != nil {
		return 0, err
	}
	return version + 1, nil
}

func (c simCustody) Create(_ context.Context, _ string, alg keyring.Algorithm, _ int) (keyring.JWK, string, error) {
	r := c.r
	var jwk keyring.JWK
	err := r.call("create", func() (string, error) {
		jwk = r.w.keys.next(alg)
		r.w.store.halves[jwk.Kid] = simHalf{created: r.w.now}
		return jwk.Kid, nil
	})
	if err == nil && r.w.climate.damage && !r.w.healing && r.w.chance.one(20) {
		err = errors.New("the new key does not verify its own signature") // discarded
	}
	return jwk, jwk.Kid, err
}

func (c simCustody) Destroy(_ context.Context, _, handle string) error {
	r := c.r
	return r.call("destroy", func() (string, error) {
		r.w.checkDestroy(r, handle)
		delete(r.w.store.halves, handle)
		return handle, nil
	})
}

func (c simCustody) List(_ context.Context, _ string) ([]string, error) {
	r := c.r
	var kids []string
	err := r.call("list", func() (string, error) {
		kids = slices.Sorted(maps.Keys(r.w.store.halves))
		return strings.Join(kids, " "), nil
	})
	return kids, err
}
