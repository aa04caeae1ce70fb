package rotator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// orphans remembers since when private halves have been without a name.
type orphans struct {
	looked time.Time
	since  map[string]time.Time
	// missing are the kids that the manifest names alive and that the last look
	// did not find.
	missing []string
	// failed says that the last look did, nil if it did not. Nothing but the
	// sweeping waits for it.
	failed *keyring.Alarm
}

// grace is how long a half may be without a name before it counts as an
// orphan. A replica that deposited it and is about to save its plan needs
// less; one that needs more loses its check-and-set to the record of the closing.
func grace(s *keyring.Snapshot) time.Duration {
	return max(time.Minute, 10*time.Duration(s.Config.SyncInterval))
}

// search lists what the custodies hold, a few times within the grace period. It
// returns the kids that no manifest has named for all of it, and adds to those
// that are damaged the ones whose halves are gone.
func (l *loop) search(ctx context.Context, s *keyring.Snapshot, now time.Time, damaged []string) (unnamed, bad []string) {
	unnamed = l.findOrphans(ctx, s, now)
	for _, kid := range l.orphans.missing {
		if k := s.Key(kid); k != nil && k.Closed.IsZero() && !slices.Contains(damaged, kid) {
			damaged = append(damaged, kid)
		}
	}
	return unnamed, damaged
}

func (l *loop) findOrphans(ctx context.Context, s *keyring.Snapshot, now time.Time) []string {
	o := &l.orphans
	if !o.looked.IsZero() && now.Sub(o.looked) < grace(s)/4 && now.After(o.looked) {
		return nil
	}
	o.looked, o.failed, o.missing = now, nil, nil
	var unnamed []string
	for name, halves := range l.cfg.Halves {
		kids, err := halves.List(ctx, l.file.Name)
		if err != nil {
			l.failed("list", err)
			o.failed = &keyring.Alarm{Code: "halves_not_listed", Issuer: l.file.Name, Since: now,
				Message: fmt.Sprintf("private halves that nothing names cannot be found and swept: list %s: %v", name, err)}
			return nil
		}
		// The halves of all keys in s were there before s was.
		for i := range s.Keys {
			if k := &s.Keys[i]; k.Custody == name && k.Closed.IsZero() && !slices.Contains(kids, k.JWK.Kid) {
				o.missing = append(o.missing, k.JWK.Kid)
			}
		}
		unnamed = append(unnamed, slices.DeleteFunc(kids, func(kid string) bool { return named(s, kid) })...)
	}
	before := o.since
	o.since = map[string]time.Time{}
	var out []string
	for _, kid := range unnamed {
		first, ok := before[kid]
		if !ok {
			first = now
		}
		o.since[kid] = first
		if now.Sub(first) > grace(s) {
			out = append(out, kid)
		}
	}
	slices.Sort(out)
	return out
}

func named(s *keyring.Snapshot, kid string) bool {
	return s.Key(kid) != nil || slices.ContainsFunc(s.Orphans, func(o keyring.Orphan) bool { return o.Kid == kid })
}
