package admin

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// states in the order of life, as they are listed and counted.
func states() []keyring.State {
	return []keyring.State{keyring.Standby, keyring.Active, keyring.Retired, keyring.Closed, keyring.Withdrawn, keyring.Revoked}
}

// issuers is all that this process knows, at one instant.
func (a *Admin) issuers(now time.Time) api.Issuers {
	h := a.judge(now)
	out := api.Issuers{Issuers: []api.Issuer{}, Replica: a.cfg.Replica}
	out.Replica.StartedAt = utc(out.Replica.StartedAt)
	out.Replica.Roles = append([]string{}, out.Replica.Roles...)
	out.Replica.Ready = h.public.Status != statusUnavailable
	out.Replica.SignerReady = h.signer.Status != statusUnavailable
	out.Replica.Reasons = h.public.Reasons
	for _, name := range a.cfg.Issuers {
		is := a.issuer(name, now)
		for _, r := range h.public.Reasons {
			if r.Issuer == name {
				is.Reasons = append(is.Reasons, r)
			}
		}
		out.Issuers = append(out.Issuers, is)
	}
	return out
}

func (a *Admin) issuer(name string, now time.Time) api.Issuer {
	out := api.Issuer{Name: name, ReadAt: utc(a.cfg.ReadAt(name)), Rings: []api.Ring{}, Targets: []api.Target{}, Reasons: []api.Reason{}}
	for _, t := range a.cfg.Targets(name) {
		t.ReadBackAt, t.ServeUntil = utc(t.ReadBackAt), utc(t.ServeUntil)
		out.Targets = append(out.Targets, t)
	}
	s := a.snapshot(name)
	if s == nil {
		return out
	}
	t := s.Config.Timing()
	out.URL, out.Lineage, out.Generation, out.Revision = s.Config.URL, s.Lineage, s.Generation, s.Config.Revision
	out.Lease = utc(s.Lease)
	out.Timing = api.Timing{
		ConsumerCacheSeconds: seconds(time.Duration(s.Config.ConsumerCache)),
		ClockSkewSeconds:     seconds(time.Duration(s.Config.ClockSkew)),
		LeewaySeconds:        seconds(time.Duration(s.Config.Leeway)),
		OutageBudgetSeconds:  seconds(t.B),
		LeadSeconds:          seconds(s.Lead(now)),
		TailSeconds:          seconds(t.Tail),
		SpanSeconds:          seconds(t.S),
	}
	for _, r := range rings(s) {
		out.Rings = append(out.Rings, a.ring(s, r, now))
	}
	for _, k := range s.Adopted {
		out.Adopted = append(out.Adopted, api.AdoptedKey{Kid: k.JWK.Kid, Algorithm: string(k.JWK.Alg), Until: utc(k.Until), RevokedAt: utc(k.Revoked)})
	}
	return out
}

// rings are those in force, and after them those that are being drained: their
// keys stay for their tails, and nothing else is known of them.
func rings(s *keyring.Snapshot) []keyring.Ring {
	out := slices.Clone(s.Config.Rings)
	for i := range s.Keys {
		name := s.Keys[i].Ring
		if !slices.ContainsFunc(out, func(r keyring.Ring) bool { return r.Name == name }) {
			out = append(out, keyring.Ring{Name: name, Algorithm: s.Keys[i].JWK.Alg, Custody: s.Keys[i].Custody})
		}
	}
	return out
}

func (a *Admin) ring(s *keyring.Snapshot, r keyring.Ring, now time.Time) api.Ring {
	out := api.Ring{
		Name: r.Name, Algorithm: string(r.Algorithm), Custody: r.Custody, Rotate: r.Rotate,
		MaxTokenTTLSeconds: seconds(time.Duration(r.MaxTokenTTL)), Keys: []api.Key{},
	}
	if r.Rotate != "" {
		out.NextRotation = utc(a.cfg.Next(r, s))
	}
	for i := range s.Keys {
		if k := &s.Keys[i]; k.Ring == r.Name {
			out.Keys = append(out.Keys, key(s, k, now))
		}
	}
	order := states()
	slices.SortFunc(out.Keys, func(x, y api.Key) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, keyring.State(x.State)), slices.Index(order, keyring.State(y.State))),
			y.CreatedAt.Compare(x.CreatedAt), // the newest first
			strings.Compare(x.Kid, y.Kid),
		)
	})
	return out
}

func key(s *keyring.Snapshot, k *keyring.Key, now time.Time) api.Key {
	out := api.Key{
		Kid: k.JWK.Kid, Algorithm: string(k.JWK.Alg), State: string(k.State(now)),
		CreatedAt: utc(k.Created), ActivatedAt: utc(k.Activated), RetiredAt: utc(k.Retired),
		SignUntil: utc(s.SignUntil(k)), ClosedAt: utc(k.Closed), DestroyedAt: utc(k.Destroyed),
		RevokedAt: utc(k.Revoked), ForcedAt: utc(k.Forced),
	}
	switch keyring.State(out.State) {
	case keyring.Standby:
		out.SafeAt, out.WaitingFor = utc(s.SafeAt(k, now)), s.WaitingFor(k)
	case keyring.Revoked:
		out.WithdrawnAt = utc(k.Revoked) // at once
	default:
		out.WithdrawnAt = utc(k.WithdrawAt())
	}
	if len(k.Confirmed) > 0 {
		out.Confirmed = map[string]time.Time{}
		for target, at := range k.Confirmed {
			out.Confirmed[target] = utc(at)
		}
	}
	return out
}

// utc keeps the zero time zero, so that it is left out.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// seconds rounds up: what is shown is never shorter than what holds.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
