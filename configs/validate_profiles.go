package configs

// profiles checks what a profile refers to. What its rules mean is judged by
// the signer, which compiles them.
func (v *validator) profiles() {
	c := v.cfg
	v.names("profiles", len(c.Profiles), func(i int) string { return c.Profiles[i].Name })
	for i, p := range c.Profiles {
		where := at("profiles", i)
		ring, ok := c.Ring(p.Ring)
		if v.need(where+".ring", p.Ring, "the name of the ring whose key signs") && !ok {
			v.follows(where+".ring", "there is no ring %q: the rings are %s", p.Ring, list(c.Rings, func(x Ring) string { return x.Name }))
		}
		v.allow(p, where+".allow")
		v.subject(p.Subject, where+".subject")
		if len(p.Audiences) == 0 {
			v.follows(where+".audiences", `is missing: list who the tokens are for; ["*"] lets the request name anybody`)
		}
		if ok {
			v.ttl(p.TTL, ring, where+".ttl")
		}
		v.rate(p.Rate, where+".rate")
		for j, claim := range p.Claims.Add {
			add := at(where+".claims.add", j)
			v.need(add+".name", claim.Name, "the claim's name")
			if len(claim.Value) == 0 {
				v.follows(add+".value", "is missing: the claim's value; null is one")
			}
		}
	}
}

func (v *validator) allow(p Profile, where string) {
	if len(p.Allow) == 0 {
		v.follows(where, "is missing: nobody could use the profile; list sockets, uids or gids")
	}
	for i, a := range p.Allow {
		if a.Socket == "" && a.UID == nil && a.GID == nil {
			v.follows(at(where, i), "is empty and would match everybody: name a socket, uid or gid")
		}
		if a.Socket == "" || !v.cfg.Has(Signer) {
			continue
		}
		if _, ok := byName(v.cfg.Listen.Sign, a.Socket, func(s SignSocket) string { return s.Name }); !ok {
			v.follows(at(where, i)+".socket", "there is no sign socket %q: listen.sign has %s", a.Socket, list(v.cfg.Listen.Sign, func(s SignSocket) string { return s.Name }))
		}
	}
}

func (v *validator) subject(s Subject, where string) {
	set := 0
	for _, value := range []string{s.Fixed, s.FromPeer, s.Pattern} {
		if value != "" {
			set++
		}
	}
	switch {
	case set == 0:
		v.follows(where, "is missing: one of fixed, from_peer or pattern")
	case set > 1:
		v.fault(where, "has more than one of fixed, from_peer and pattern: keep one")
	}
}

func (v *validator) rate(r Rate, where string) {
	if !v.src.given(where) {
		return
	}
	switch {
	case !v.src.given(where + ".per_second"):
		v.follows(where+".per_second", "is missing: how many signatures a second each caller may have")
	case r.PerSecond < 1:
		v.fault(where+".per_second", "is %d: at least 1; take rate out for no limit", r.PerSecond)
	}
	if v.src.given(where+".burst") && r.Burst < 1 {
		v.fault(where+".burst", "is %d: at least 1, or take it out for per_second", r.Burst)
	}
}

func (v *validator) ttl(t TTL, ring Ring, where string) {
	v.wholeSeconds(where+".default", t.Default)
	v.wholeSeconds(where+".max", t.Max)
	if t.Max > ring.MaxTokenTTL {
		v.fault(where+".max", "is %s, longer than max_token_ttl of ring %s (%s): lower it, or raise that one together with the issuer's revision", t.Max, ring.Name, ring.MaxTokenTTL)
	}
	if t.Default > t.Max {
		v.fault(where+".default", "is %s, longer than max (%s)", t.Default, t.Max)
	}
}
