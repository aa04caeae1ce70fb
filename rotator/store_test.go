package rotator_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// fault is what a hook makes of an operation of the store.
type fault int

const (
	works    fault = iota
	fails          // nothing happens, and the caller hears of an error
	persists       // it happens, and the caller hears of an error
	diesBefore
	diesAfter
)

var errInjected = fmt.Errorf("%w: injected", keyring.ErrUnavailable)

// world is a store of one issuer's manifest and private halves, shared by
// replicas. It holds every write against the rules.
type world struct {
	t *testing.T

	mu          sync.Mutex
	doc         []byte
	version     int
	decoded     *keyring.Snapshot // of decodedFrom
	decodeErr   error
	decodedFrom []byte
	lineages    []string
	written     int // manifests
	halves      map[string]bool
	lost        map[string]bool // halves that a test took away
	created     int
	destroyed   []string
	calls       map[string]int
	down        error
	hook        func(op string, by *replica) fault
	beforeCAS   func() // runs once, in the middle of somebody's save
}

func newWorld(t *testing.T) *world {
	return &world{t: t, halves: map[string]bool{}, lost: map[string]bool{}, calls: map[string]int{}}
}

// replica is one process: a rotator, and what the rest of the daemon would be.
type replica struct {
	*world
	rot    *rotator.Rotator
	cancel context.CancelFunc
	done   chan struct{}

	rec      sync.Mutex // guards what follows
	dead     bool
	blind    bool // its targets show nothing
	accepted []*keyring.Snapshot
	events   []keyring.Event
	errors   []string
}

func (r *replica) do(ctx context.Context, op string, f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil || r.isDead() {
		return context.Canceled
	}
	r.calls[op]++
	if r.down != nil {
		return r.down
	}
	what := works
	if r.hook != nil {
		what = r.hook(op, r)
	}
	switch what {
	case fails:
		return errInjected
	case diesBefore:
		r.die()
		return context.Canceled
	}
	err := f()
	switch what {
	case persists:
		return errInjected
	case diesAfter:
		r.die()
		return context.Canceled
	}
	return err
}

func (r *replica) isDead() bool {
	r.rec.Lock()
	defer r.rec.Unlock()
	return r.dead
}

// die is kill -9 as far as the store can tell: nothing comes from it any more.
func (r *replica) die() {
	r.rec.Lock()
	defer r.rec.Unlock()
	r.dead = true
	r.cancel()
}

func (r *replica) Load(ctx context.Context, issuer string) (s *keyring.Snapshot, version int, err error) {
	err = r.do(ctx, "load", func() error {
		if issuer != "main" {
			r.t.Errorf("issuer %q", issuer)
		}
		if r.doc == nil {
			return keyring.ErrNoManifest
		}
		version = r.version
		var err error
		s, err = r.decode()
		return err
	})
	return s, version, err
}

func (r *replica) Save(ctx context.Context, _ string, next *keyring.Snapshot, version int) (int, error) {
	err := r.do(ctx, "save", func() error {
		if f := r.beforeCAS; f != nil {
			r.beforeCAS = nil
			f()
		}
		if version != r.version {
			return keyring.ErrConflict
		}
		doc, err := keyring.Encode(next)
		if err != nil {
			return err
		}
		r.checkWrite(next)
		r.doc, r.version, r.written = doc, r.version+1, r.written+1
		return nil
	})
	return version + 1, err
}

// checkWrite holds a manifest that is about to be stored against the one that is.
func (w *world) checkWrite(next *keyring.Snapshot) {
	if next.Frozen != nil { // written over whatever is there
		return
	}
	if w.doc == nil {
		w.lineages = append(w.lineages, next.Lineage)
		if next.Generation != 1 || len(next.Keys) != 0 {
			w.t.Errorf("founded with generation %d and %d keys", next.Generation, len(next.Keys))
		}
		return
	}
	before := w.stored()
	if next.Generation != before.Generation+1 || next.Lineage != before.Lineage || next.WriteID == before.WriteID {
		w.t.Errorf("generation %d of %s (%s) follows %d of %s (%s)", next.Generation, next.Lineage, next.WriteID, before.Generation, before.Lineage, before.WriteID)
	}
	active, standby := map[string]int{}, map[string]int{}
	for i := range next.Keys {
		k := &next.Keys[i]
		switch k.State(next.WrittenAt) {
		case keyring.Active:
			active[k.Ring]++
		case keyring.Standby:
			standby[k.Ring]++
		}
		if k.Closed.IsZero() && !w.halves[k.JWK.Kid] && !w.lost[k.JWK.Kid] {
			w.t.Errorf("generation %d names %s, whose half does not exist", next.Generation, k.JWK.Kid)
		}
	}
	for ring, n := range active {
		if n > 1 {
			w.t.Errorf("ring %s has %d active keys", ring, n)
		}
	}
	for ring, n := range standby {
		if n > 1 {
			w.t.Errorf("ring %s has %d standby keys", ring, n)
		}
	}
}

func (r *replica) Create(ctx context.Context, _ string, alg keyring.Algorithm, _ int) (jwk keyring.JWK, handle string, err error) {
	err = r.do(ctx, "create", func() error {
		r.created++
		seed := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint64(seed, uint64(r.created))
		var err error
		jwk, err = keyring.NewJWK(ed25519.NewKeyFromSeed(seed).Public(), alg)
		handle = jwk.Kid
		r.halves[handle] = true
		return err
	})
	return jwk, handle, err
}

func (r *replica) Destroy(ctx context.Context, _, handle string) error {
	return r.do(ctx, "destroy", func() error {
		if s := r.stored(); s != nil && r.halves[handle] { // again is as good as once
			k := s.Key(handle)
			orphan := slices.ContainsFunc(s.Orphans, func(o keyring.Orphan) bool { return o.Kid == handle })
			if (k == nil || k.Closed.IsZero()) && !orphan {
				r.t.Errorf("%s is destroyed and the manifest does not show it closed", handle)
			}
		}
		if r.halves[handle] {
			r.destroyed = append(r.destroyed, handle)
		}
		delete(r.halves, handle)
		return nil
	})
}

func (r *replica) List(ctx context.Context, _ string) (kids []string, err error) {
	err = r.do(ctx, "list", func() error {
		kids = slices.Sorted(maps.Keys(r.halves))
		return nil
	})
	return kids, err
}

// stored is the manifest, nil if there is none. The caller holds mu.
func (w *world) stored() *keyring.Snapshot {
	if w.doc == nil {
		return nil
	}
	s, err := w.decode()
	if err != nil && !errors.Is(err, keyring.ErrSchema) {
		w.t.Fatalf("the stored manifest: %v", err)
	}
	return s
}

// decode keeps the last: decoding is most of what a simulated day costs.
func (w *world) decode() (*keyring.Snapshot, error) {
	if !bytes.Equal(w.doc, w.decodedFrom) {
		w.decodedFrom = w.doc
		w.decoded, w.decodeErr = keyring.Decode(w.doc)
	}
	return w.decoded, w.decodeErr
}

func (w *world) manifest() *keyring.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stored()
}

// change does something to the world that no replica did.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) count(op string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[op]
}

// hanging is a store that may take a call and never answer.
type hanging struct {
	rotator.Store
	yes atomic.Bool
}

func (h *hanging) Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	if h.yes.Load() {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return h.Store.Load(ctx, issuer)
}
