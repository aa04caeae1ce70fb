package keys

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// Alarms lists what is not as it should be with keys and leases, sorted. The
// fatal ones stop a ring. A ring that still waits for its first key is not one of
// them while another ring signs: that is how a ring begins.
func (h *Holder) Alarms(now time.Time) []keyring.Alarm {
	var out []keyring.Alarm
	var begins []int // places of rings without a first key
	signs := false
	views := h.Views()
	for _, name := range slices.Sorted(maps.Keys(views)) {
		v := views[name]
		if v.Snapshot == nil {
			out = append(out, keyring.Alarm{
				Code: "no_manifest", Issuer: name, Fatal: true,
				Message: "the manifest of this issuer has not been read yet; see the rotator's reasons",
			})
			continue
		}
		for _, ring := range slices.Sorted(maps.Keys(v.rings)) {
			_, prob := v.Pick(ring, now)
			signs = signs || prob == nil
			if prob == nil || v.drained(ring) {
				continue
			}
			if prob.Code == api.NoActiveKey && v.unborn(ring) {
				begins = append(begins, len(out))
			}
			out = append(out, keyring.Alarm{Code: ringCode(prob), Issuer: name, Ring: ring, Message: prob.Detail, Since: v.since(prob), Fatal: true})
		}
		out = append(out, v.loadAlarms()...)
	}
	for _, i := range begins {
		out[i].Fatal = !signs
	}
	slices.SortStableFunc(out, func(a, b keyring.Alarm) int {
		return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Ring, b.Ring), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Kid, b.Kid))
	})
	return out
}

// ringCode is the code of the alarm for a ring that cannot sign.
func ringCode(p *api.Problem) string {
	if p.Code == api.Unavailable {
		return "key_not_loaded"
	}
	return string(p.Code)
}

// since is when a lease ended, where that is why nobody signs.
func (v *View) since(p *api.Problem) time.Time {
	if p.Code == api.SigningLapsed {
		return v.Snapshot.Lease
	}
	return time.Time{}
}

// drained reports whether the configuration in force has left the ring out.
func (v *View) drained(ring string) bool {
	_, ok := v.Snapshot.Config.Ring(ring)
	return !ok
}

// unborn reports whether no key of the ring was ever active.
func (v *View) unborn(ring string) bool {
	return !slices.ContainsFunc(v.Snapshot.Keys, func(k keyring.Key) bool { return k.Ring == ring && !k.Activated.IsZero() })
}

// loadAlarms tells which halves are missing. Whether that stops a ring is said
// by the ring's own alarm.
func (v *View) loadAlarms() []keyring.Alarm {
	const goesOn = "the rotator replaces it by itself if it is a standby, and rotates early to the proven standby if it is the active key, while the previous key signs on within its lease; "
	mend := map[string]string{
		"key_missing":   "the store has no private half for this key, so it cannot sign; " + goesOn + "find out who took it away",
		"key_mismatch":  "the private half in the store does not belong to this key, so it never signs; " + goesOn + "find out who wrote it",
		"key_denied":    "the store refuses the signer's permission to read this private half; compare the policy with deploy/vault",
		codeUnavailable: "the store cannot be reached to load this private half; it is tried again",
	}
	var out []keyring.Alarm
	for kid, f := range v.failed {
		k := v.Snapshot.Key(kid)
		if k == nil {
			continue
		}
		code := alarmCode(f.err)
		out = append(out, keyring.Alarm{
			Code: code, Issuer: v.Issuer, Ring: k.Ring, Kid: kid, Since: f.since,
			Message: fmt.Sprintf("%s (%v)", mend[code], f.err),
		})
	}
	return out
}
