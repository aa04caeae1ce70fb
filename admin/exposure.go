package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// rotation tells what a rotation made, or would make, of a manifest.
func rotation(before, after *keyring.Snapshot, ring string, now time.Time) api.RotateResponse {
	out := api.RotateResponse{Ring: ring}
	is, was := after.Active(ring), before.Active(ring)
	if is != nil {
		out.ActiveKid = is.JWK.Kid
	}
	out.Changed = is != nil && (was == nil || was.JWK.Kid != out.ActiveKid)
	if was != nil && out.Changed {
		if k := after.Key(was.JWK.Kid); k != nil {
			out.RetiredKid, out.RetiredUntil = k.JWK.Kid, whole(k.WithdrawAt())
		}
	}
	for _, s := range keyring.Exposed(before, after, now).Successors {
		if s.Ring != ring {
			continue
		}
		told := successor(after, s, now)
		out.Reinstated = told.Kind == api.SuccessorRetired
		out.SafeAt, out.WaitingFor, out.Breaks = told.SafeAt, told.WaitingFor, told.Breaks
	}
	return out
}

// revocation tells the exposure of a revocation that was, or would be, made.
func revocation(before, after *keyring.Snapshot, cmd keyring.Command, dryRun bool, now time.Time) api.RevokeResponse {
	e := keyring.Exposed(before, after, now)
	out := api.RevokeResponse{
		Issuer: before.Config.Name, DryRun: dryRun, Changed: len(e.Revoked) > 0, Generation: after.Generation,
		Revoked: []api.RevokedKey{}, AlreadyRevoked: alreadyRevoked(before, cmd),
		Successors: []api.Successor{}, Targets: []api.TargetExposure{}, Consumers: []api.ConsumerExposure{},
	}
	if dryRun {
		out.Generation = before.Generation
	}
	if !out.Changed {
		return out
	}
	for _, k := range e.Revoked {
		out.Revoked = append(out.Revoked, api.RevokedKey{Kid: k.Kid, Ring: k.Ring, State: string(k.State), TokensUntil: whole(k.TokensUntil)})
	}
	for _, s := range e.Successors {
		if dryRun && cmd.Force && s.Kind == keyring.NobodySigns {
			s.Kind = keyring.UnprovenStandby // it signs with the write after the one that is shown
		}
		out.Successors = append(out.Successors, successor(after, s, now))
	}
	for _, t := range before.Config.Targets {
		by := e.SharedBy
		if t.Kind == keyring.TargetConfirm { // what stands before it counts in consumer_cache
			by = e.ConnectedUntil
		}
		out.Targets = append(out.Targets, api.TargetExposure{Name: t.Name, Kind: string(t.Kind), StopsBy: whole(by)})
	}
	if !e.SignersUntil.IsZero() || !e.ServedUntil.IsZero() {
		out.CutOff = &api.CutOffExposure{SignUntil: whole(e.SignersUntil), ServeUntil: whole(e.ServedUntil)}
	}
	out.Consumers = consumers(after, e, time.Duration(before.Config.ConsumerCache))
	return out
}

// alreadyRevoked are the keys that a command names and that were revoked before.
func alreadyRevoked(before *keyring.Snapshot, cmd keyring.Command) []string {
	var out []string
	for i := range before.Keys {
		k := &before.Keys[i]
		if named := k.Ring == cmd.RevokeRing || slices.Contains(cmd.Revoke, k.JWK.Kid); named && !k.Revoked.IsZero() {
			out = append(out, k.JWK.Kid)
		}
	}
	for _, k := range before.Adopted {
		if slices.Contains(cmd.Revoke, k.JWK.Kid) && !k.Revoked.IsZero() {
			out = append(out, k.JWK.Kid)
		}
	}
	slices.Sort(out)
	return out
}

// successor tells who signs for a ring in a manifest, and what goes wrong until
// every consumer knows that key.
func successor(s *keyring.Snapshot, who keyring.Successor, now time.Time) api.Successor {
	out := api.Successor{Ring: who.Ring, Kind: string(who.Kind), Kid: who.Kid, SafeAt: whole(who.SafeAt), WaitingFor: who.Waiting}
	key, lead := out.Kid, span(s.Lead(now))
	if key == "" {
		key = "a new key"
	}
	until := out.SafeAt.Format(time.RFC3339)
	switch {
	case out.Kid == "":
		until = fmt.Sprintf("%s has been read back from every required target and %s have passed since", key, lead)
	case len(out.WaitingFor) > 0:
		until = fmt.Sprintf("%s has been read back from %s and %s have passed since", key, strings.Join(out.WaitingFor, ", "), lead)
	}
	switch who.Kind {
	case keyring.NobodySigns:
		out.Breaks = []string{fmt.Sprintf("Nobody signs for ring %s until %s: callers get 503 no_active_key.", who.Ring, until)}
	case keyring.UnprovenStandby:
		out.Breaks = []string{fmt.Sprintf("Ring %s signs with %s before every consumer knows it: those whose copy of the set lacks it refuse its tokens, some of them until %s.", who.Ring, key, until)}
	}
	return out
}

// consumers tells when each kind of consumer stops trusting what is revoked.
func consumers(after *keyring.Snapshot, e keyring.Exposure, cache time.Duration) []api.ConsumerExposure {
	out := []api.ConsumerExposure{{Kind: api.ConsumersPolling, Until: whole(e.ConnectedUntil),
		Note: fmt.Sprintf("Those that read the set again within consumer_cache (%s).", span(cache))}}
	if !e.ServedUntil.IsZero() {
		out = append(out, api.ConsumerExposure{Kind: api.ConsumersPollingCutOff, Until: whole(e.ConsumersUntil),
			Note: "The same, where they fetch from a replica that is cut off from the store."})
	}
	note := []string{"Those that read the set again only for a kid that they do not know (go-oidc, Vault's jwt auth) trust a revoked key until then."}
	for _, s := range e.Successors {
		note = append(note, refetch(after, s))
	}
	if len(e.Successors) == 0 {
		note = append(note, "No key signs that did not sign before: restart them, or rotate.")
	}
	return append(out, api.ConsumerExposure{Kind: api.ConsumersUnknownKid, Note: strings.Join(note, " ")})
}

// refetch says whether a successor makes those consumers read the set again
// that do so for an unknown kid alone.
func refetch(after *keyring.Snapshot, s keyring.Successor) string {
	k := after.Key(s.Kid)
	switch {
	case s.Kind == keyring.RetiredKey:
		return fmt.Sprintf("%s (ring %s) signed before, so they know it and do not read again: restart them, or rotate as soon as the standby is safe.", s.Kid, s.Ring)
	case s.Kind == keyring.NobodySigns || k == nil:
		return fmt.Sprintf("For ring %s they do so when its next key signs.", s.Ring)
	}
	return fmt.Sprintf("The first token of %s (ring %s) makes them do so, but for those that have read the set since %s, when that key joined it: restart these.",
		s.Kid, s.Ring, k.Created.UTC().Truncate(time.Second).Format(time.RFC3339))
}

// acceptance tells what keyturn accept commits.
func acceptance(issuer string, a keyring.Acceptance, dryRun bool, now time.Time) api.AcceptResponse {
	list := func(kids []string) []string { return append([]string{}, kids...) }
	out := api.AcceptResponse{
		Issuer: issuer, DryRun: dryRun, Lineage: a.Next.Lineage, Generation: a.Next.Generation,
		Retired: list(a.Retired), Dropped: list(a.Dropped), Destroyed: list(a.Destroyed), Successors: []api.Successor{},
	}
	for _, r := range a.Next.Config.Rings {
		if a.Next.Active(r.Name) != nil {
			continue
		}
		who := keyring.Successor{Ring: r.Name, Kind: keyring.NobodySigns}
		if k := a.Next.Standby(r.Name); k != nil {
			who.Kid, who.SafeAt, who.Waiting = k.JWK.Kid, a.Next.SafeAt(k, now), a.Next.WaitingFor(k)
			if !who.SafeAt.IsZero() && !now.Before(who.SafeAt) {
				who.Kind, who.SafeAt = keyring.ProvenStandby, time.Time{}
			}
		}
		out.Successors = append(out.Successors, successor(a.Next, who, now))
	}
	return out
}

// span is a duration as people write it: 15m, not 15m0s.
func span(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// whole rounds a time up to whole seconds, in UTC: who comes back at a second
// that was told is not too early. The zero time stays zero.
func whole(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	if cut := t.Truncate(time.Second); cut.Before(t) {
		t = cut.Add(time.Second)
	}
	return t.UTC()
}
