package publisher

import (
	"bytes"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/internal/crashpoint"
)

// The set and its side file are public.
const fileMode = 0o644

// publish brings the file to the snapshot, if it is ours, not ahead, and locked.
func (v *visit) publish() {
	s, h := v.snapshot, &v.held
	if h.side != nil && h.side.Lineage != s.Lineage && h.away(v.clock.Late) {
		h.side = nil // taken away, and nobody has brought it back: nothing is held here
	}
	if v.isForeign() && !v.takeOver() {
		return
	}
	v.last = h.side
	if v.isAhead() {
		return
	}
	next := s.Hold(v.now)
	// What does not take a file away does not keep it from being replaced either.
	if next.Expired(v.ends()) || !s.Servable() {
		return
	}
	set, err := render(v.job)
	if err != nil {
		v.fail(CodePublishRefused, v.required, err)
		if v.lockErr == nil { // what is there may show a key that was revoked, so it does not stay
			v.remove()
		}
		return
	}
	v.report.changes = set.Changes
	want := sideSet{Generation: next.Generation, ServeUntil: next.ServeUntil.UTC(), SHA256: digest(set.Body)}
	if v.lockErr == nil {
		if err := v.replace(set.Body, want); err != nil {
			v.fail(CodePublishFailed, v.required && !h.exists, err)
		}
	}
	// Where only the side file could not be written, the set that is there is
	// the right one all the same, and stays for as long as this process knows it.
	if h.set != nil && h.set.SHA256 == want.SHA256 {
		h.set = &want
	}
}

// replace writes the side file and the file, in this order, as far as they
// differ from what is there.
//
// A crash before the first write leaves everything as it was. One between the
// two leaves the old file, and a side file that lists it beside the new set: the
// old digest tells that the old serve_until holds. One after the second leaves the
// new file, listed. The old entry goes with the next write; it matches nothing.
func (v *visit) replace(body []byte, want sideSet) error {
	h := &v.held
	same := h.set != nil && h.set.SHA256 == want.SHA256
	if same && h.set.equal(want) && !h.spoilt {
		return nil
	}
	next := &side{Format: sideFormat, Issuer: v.issuer, Lineage: v.snapshot.Lineage, Sets: []sideSet{want}}
	if h.set != nil && !same {
		next.Sets = []sideSet{*h.set, want}
	}
	doc, err := encodeSide(next)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(v.root, v.name+sideSuffix, doc, fileMode); err != nil {
		return err
	}
	v.last, h.side, h.spoilt = next, next, false
	if !same {
		crashpoint.Here("publish.listed")
		if err := atomicfile.Write(v.root, v.name, body, fileMode); err != nil {
			return err
		}
		crashpoint.Here("publish.wrote")
	}
	read, err := atomicfile.Read(v.root, v.name, maxSet)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(read, body) {
		return fmt.Errorf("read %s back: it does not hold what was written", v.path)
	}
	h.exists, h.body, h.set = true, read, &want
	v.report.wrote = true
	return nil
}

// expire takes the file away when it is too old to be served: a consumer that
// finds no set asks again, one that finds an old set refuses good tokens. It
// needs no snapshot. A file of another lineage is not ours to take away.
func (v *visit) expire() {
	h, stands := &v.held, v.held.holds()
	if stands.Lineage == "" || !stands.Expired(v.ends()) || h.side.Issuer != v.issuer ||
		(v.snapshot != nil && v.snapshot.Lineage != stands.Lineage) || !v.remove() {
		return
	}
	v.fail(CodeServeExpired, v.required, fmt.Errorf(
		"the set in %s was not to be served after %s and no newer one has come: the file was taken away, and comes back when the manifest can be read again",
		v.path, stamp(stands.ServeUntil)))
}

// ends is the time by which a set here is over: nothing is brought that the
// later clock calls too old, and what is there goes at Away.
func (v *visit) ends() time.Time {
	if v.held.exists {
		return v.clock.Away
	}
	return v.clock.Late
}

// remove takes the file away and reports whether it is gone. The side file
// stays: it keeps the generation that was published here.
func (v *visit) remove() bool {
	h := &v.held
	if !h.exists {
		return true
	}
	err := v.lockErr
	if err == nil {
		err = v.root.Remove(v.name)
	}
	if err == nil {
		err = atomicfile.SyncDir(v.root)
	}
	if err != nil {
		v.fail(CodeTakeAwayFailed, true, fmt.Errorf("%s must not be served any longer and cannot be taken away (%w): take this host out of service, or remove the file", v.path, err))
		return false
	}
	h.exists, h.body, h.set = false, nil, nil
	v.report.set, v.report.readAt, v.report.generation = nil, time.Time{}, 0
	return true
}
