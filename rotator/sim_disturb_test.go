package rotator

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// disturb makes a fault come or go, of those that the climate has.
func (w *simWorld) disturb(r *simReplica) {
	c := &w.climate
	if c.single {
		w.disturbHost(r)
		return
	}
	switch n := w.chance.pick(14); {
	case n < 3 && c.cuts:
		w.cut(r)
	case w.faults.storeDown || w.faults.storeSealed:
		w.faults.storeDown, w.faults.storeSealed = false, false
	case n < 4 && c.cuts && w.chance.one(4):
		w.faults.storeDown = true
		w.fault("store down")
	case n < 5 && c.cuts && w.chance.one(4):
		w.faults.storeSealed = true
		w.fault("store sealed")
	case n < 6 && c.restores && w.chance.one(4):
		w.damageManifest()
	case n < 7 && c.schema && w.chance.one(4):
		w.newer()
	case n < 8 && c.clocks && w.chance.one(2):
		w.stepClock(r)
	case n < 9 && c.damage && w.chance.one(6):
		w.damageHalf()
	case n < 10 && c.stateLoss && !w.faults.disturbed && w.chance.one(8):
		w.loseState(r)
	default:
		w.disturbHost(r)
	}
}

func (w *simWorld) disturbHost(r *simReplica) {
	c := &w.climate
	switch n := w.chance.pick(8); {
	case n < 2 && c.crashes && r.alive && w.chance.one(2):
		w.fault("crash")
		r.crash()
	case n < 3 && c.targets:
		r.lag = !r.lag
		w.fault("target refuses")
	case n < 4 && c.stateLoss:
		r.unkept = !r.unkept
		w.fault("state disk full")
	case n < 5 && c.revisions:
		w.reload(r)
	case n < 6 && c.drift && r.drift == 0:
		r.drift = simSeconds(simPick(w.chance, 5, 20))
		w.fault("drifted file")
	case !r.alive:
		r.start()
	}
}

// cut takes the store away from one replica. In some climates it stays so for
// longer than it may serve.
func (w *simWorld) cut(r *simReplica) {
	if r.cut && (w.now.Before(r.cutUntil) || w.climate.longCuts && !w.chance.one(5)) {
		return
	}
	others := 0
	for _, x := range w.replicas {
		if x.cut && x != r {
			others++
		}
	}
	if !r.cut && others > 0 && !w.chance.one(4) {
		return // mostly somebody is left who goes on
	}
	r.cut = !r.cut
	w.fault("cut off")
	w.log("replica %d is cut off: %v", r.id, r.cut)
}

// conspire cuts somebody off at the worst moment: as another one stores what
// he will not hear of, with a lease that has just been renewed.
func (w *simWorld) conspire(by *simReplica) {
	if !w.climate.longCuts || w.healing || !w.chance.one(3) {
		return
	}
	for _, r := range w.replicas {
		if r.cut {
			return
		}
	}
	r := w.replicas[(by.id+1+w.chance.pick(len(w.replicas)-1))%len(w.replicas)]
	if r == by || r.accepted == nil {
		return
	}
	r.cut, r.cutUntil = true, w.now.Add(w.chance.duration(300*time.Second, 900*time.Second))
	w.fault("cut off at the worst moment")
	w.log("replica %d is cut off as %d writes", r.id, by.id)
}

// reload gives a replica the next revision of the file.
func (w *simWorld) reload(r *simReplica) {
	if r.file+1 >= len(w.files) || r.tick != nil {
		return
	}
	r.file++
	r.drift = 0
	w.fault("revision")
	if r.alive {
		r.loop.file = r.config()
	}
	w.log("replica %d has file %d now", r.id, r.file+1)
}

// stepClock sets a host's wall clock, or lets the host sleep; or the store's.
func (w *simWorld) stepClock(r *simReplica) {
	if w.chance.one(8) {
		w.storeOffset = simPick(w.chance, w.offset(), -2*time.Hour, 2*time.Hour)
		w.fault("store clock")
		return
	}
	switch {
	case r.jump != 0:
		r.jump = 0
		w.fault("clock mended")
	default:
		year := 365 * 24 * time.Hour
		r.jump = simPick(w.chance, year, -time.Hour, 100*time.Second, -100*time.Second, 200*time.Second, 70*time.Second, -70*time.Second)
		w.fault(fmt.Sprintf("clock %+d s", int(r.jump.Seconds())))
	}
	w.log("the clock of replica %d is off by %v", r.id, r.jump)
	if r.alive && w.chance.one(4) {
		r.crash() // it starts again by a wrong clock
	}
}

// damageHalf takes or garbles the private half of a key that still counts.
func (w *simWorld) damageHalf() {
	s := w.store.truth
	if s == nil || len(s.Keys) == 0 {
		return
	}
	k := &s.Keys[w.chance.pick(len(s.Keys))]
	h, ok := w.store.halves[k.JWK.Kid]
	if !ok || !k.Closed.IsZero() {
		return
	}
	if h.damaged = true; w.chance.one(2) {
		delete(w.store.halves, k.JWK.Kid)
	} else {
		w.store.halves[k.JWK.Kid] = h
	}
	w.fault("half damaged")
	w.log("the half of %s is damaged", k.JWK.Kid)
}

// damagedKids is what the signer tells the loop.
func (r *simReplica) damagedKids(string) []string {
	r.told = slices.Sorted(maps.Keys(r.damaged))
	return r.told
}

// loseState takes a host's state directory and what it served, as an emptyDir does.
func (w *simWorld) loseState(r *simReplica) {
	if r.alive {
		r.crash()
	}
	r.disk, r.seen = nil, 0
	for _, p := range w.places {
		if p.by == r.id {
			p.snap, p.held, p.high = nil, keyring.Held{}, 0
		}
	}
	w.fault("state lost")
	w.log("replica %d loses its state", r.id)
}

// newer lets a keyturn of a newer schema write, and later an operator go back.
func (w *simWorld) newer() {
	v := w.store.version
	if w.store.truth == nil || v.snap == nil || v.snap.Frozen != nil || w.faults.disturbed || w.faults.storeDown {
		return
	}
	s := v.snap.Clone()
	s.Schema, s.Generation, s.WriteID = keyring.Schema, s.Generation+1, fmt.Sprint("newer", w.count.Steps)
	doc := mustEncode(s)
	if !w.faults.schema {
		doc = bytes.Replace(doc, []byte(`"schema":1,`), []byte(`"schema":2,"x_newer":{"n":1},`), 1)
		w.fault("newer schema")
	} else if v.snap.Schema != keyring.Schema {
		// back to our schema: what the newer one added stays
	} else {
		return
	}
	snap, err := keyring.Decode(doc)
	w.faults.schema = true
	w.store.put(simVersion{w.store.version.number + 1, doc, snap, err})
	w.store.truth = snap
	w.log("generation %d is written with schema %d", snap.Generation, snap.Schema)
}

// damageManifest restores the store from a backup, or takes the manifest away.
func (w *simWorld) damageManifest() {
	top := w.highest()
	if w.store.truth == nil || w.faults.disturbed || w.faults.storeDown || w.faults.storeSealed || !top.alive || top.cut || top.seen == 0 || !top.advance || top.jump != 0 || top.unkept {
		return
	}
	for range 8 { // its tick ends before the operator begins
		if top.tick != nil {
			top.finish()
		}
	}
	top = w.highest()
	if !top.alive || !top.advance {
		return
	}
	s := &w.store
	switch n := w.chance.pick(6); {
	case n < 3 && len(s.backups) > 0:
		b := s.backups[w.chance.pick(len(s.backups))]
		s.version, s.halves = b.version, maps.Clone(b.halves)
		w.fault("restored")
	case n < 4:
		s.version = simVersion{number: s.version.number + 1, err: fmt.Errorf("%w: not JSON", keyring.ErrCorrupt)}
		w.fault("manifest corrupt")
	case n < 5:
		s.version = simVersion{}
		w.fault("manifest deleted")
	default:
		other := s.truth.Clone()
		other.Lineage, other.WriteID = "another", "another"
		s.version = simVersion{number: s.version.number + 1, doc: mustEncode(other), snap: other}
		w.fault("other lineage")
	}
	w.faults.disturbed = true
	w.faults.since = w.now
	w.log("the store is restored, or damaged: version %d", s.version.number)
	for _, r := range w.replicas {
		r.abandon()
	}
	// Every replica reads once before any acts, the one that knows most first.
	w.healing = true
	if w.chance.one(2) { // restarted together with the store
		top.crash()
		top.start()
	}
	top.begin(nil)
	top.finish()
	w.healing = false
	s.history = []simVersion{s.version} // no node shows what was before
}

// backup keeps what a restore brings back.
func (w *simWorld) backup() {
	s := &w.store
	if !w.climate.restores || w.faults.disturbed || s.truth == nil {
		return
	}
	s.backups = append(s.backups, simBackup{s.version, maps.Clone(s.halves), w.now})
	if len(s.backups) > 6 {
		s.backups = s.backups[1:]
	}
}

// mend is keyturn accept on the replica that knows most, after every one has
// read the store; any other one is refused, or is told so.
func (w *simWorld) mend(calm bool) {
	r := w.highest()
	if !calm && w.chance.one(4) {
		r = w.replicas[w.chance.pick(len(w.replicas))]
		if r.seen < w.highest().seen && !w.allRead() {
			return // an operator who does not know which one it is looks first
		}
	}
	if !r.alive || r.tick != nil || !r.advance || r.accepted == nil || !w.allRead() {
		return
	}
	w.log("keyturn accept at replica %d", r.id)
	w.fault("accept")
	r.replies = make(chan answer, 1)
	r.begin(&command{accept: true, answer: r.replies, force: w.insist && r == w.highest(), dryRun: !calm && w.chance.one(6)})
}

// allRead: every replica has seen the store as it is since it was restored.
func (w *simWorld) allRead() bool {
	for _, r := range w.replicas {
		if !r.alive || !r.readAt.After(w.faults.since) {
			return false
		}
	}
	return true
}
