package rotator_test

// mutants are the rules of design.md §3 and §4, each dropped in turn, and the
// faults that the simulator found in this code.
func mutants() []mutant {
	var all []mutant
	for _, list := range [][]mutant{mutantsOfTime(), mutantsOfWrites(), mutantsOfLife(), mutantsOfClocks()} {
		all = append(all, list...)
	}
	return all
}

// mutantsOfTime drop what lead, tail and lease are made of.
func mutantsOfTime() []mutant {
	return []mutant{
		{"no lead", "hurry", []edit{{"keyring/timing.go",
			"	return s.Config.lead(span)\n", "	return 0 * s.Config.lead(span)\n"}}},
		{"no skew", "hurry", []edit{
			{"keyring/timing.go", "t.Tail = t.T + e + leeway", "t.Tail = t.T + 0*e + leeway"},
			{"keyring/timing.go", "lead := time.Duration(c.ConsumerCache + c.ClockSkew)", "lead := time.Duration(c.ConsumerCache)"},
			{"keyring/timing.go", "time.Duration(c.SyncInterval) + time.Duration(c.ClockSkew) + tail", "time.Duration(c.SyncInterval) + tail"}}},
		{"no S in lead", "hurry", []edit{{"keyring/timing.go",
			"	if c.SelfServed() && !c.SingleProcess {\n		lead += span", "	if false && c.SelfServed() {\n		lead += span"}}},
		{"B in place of S", "hurry", []edit{{"keyring/timing.go",
			"		lead += span\n", "		lead += time.Duration(c.OutageBudget)\n"}}},
		{"S per ring, not per issuer", "unequal", []edit{{"keyring/state.go",
			"	return slowest.Add(s.Lead(now))\n",
			"	return slowest.Add(s.Config.lead(s.Config.span(time.Duration(k.MaxTTL + s.Config.ClockSkew + s.Config.Leeway))))\n"}}},
		{"no sign_until", "hurry,emergency", []edit{{"keyring/serve.go",
			"	return now.Before(until) && late.Before(until) && !s.LeaseFault(now)\n", "	return !s.LeaseFault(now)\n"}}},
		{"retention counted from the rotation", "hurry", []edit{{"keyring/state.go",
			"	return k.SignUntil.Add(time.Duration(k.Tail))\n", "	return k.Retired.Add(time.Duration(k.Tail))\n"}}},
		{"no fence", "hurry", []edit{{"keyring/serve.go",
			"	return !late.Before(h.ServeUntil)\n", "	return false\n"}}},
		{"serve_until from the local read", "hurry", []edit{
			{"keyring/serve.go", "func (s *Snapshot) Hold(time.Time) Held {", "func (s *Snapshot) Hold(readAt time.Time) Held {"},
			{"keyring/serve.go", "ServeUntil: s.ServeUntil()}", "ServeUntil: readAt.Add(s.Config.Timing().S)}"}}},
		{"no floor", "lowering", []edit{{"keyring/plan_config.go",
			"func (p *planner) floor() {\n", "func (p *planner) floor() {\n	if p != nil {\n		return\n	}\n"}}},
		{"the tail not raised before longer tokens", "lowering,revisions", []edit{{"keyring/plan_config.go",
			"			k.MaxTTL, k.Tail = max(k.MaxTTL, r.MaxTokenTTL), max(k.Tail, tail)\n", "			k.MaxTTL = max(k.MaxTTL, r.MaxTokenTTL)\n			_ = tail\n"}}},
	}
}

// mutantsOfWrites drop what makes many replicas one.
func mutantsOfWrites() []mutant {
	return []mutant{
		{"no check-and-set", "races", []edit{{"rotator/freeze.go",
			"func (l *loop) write(ctx context.Context, next *keyring.Snapshot, version int) error {\n",
			"func (l *loop) write(ctx context.Context, next *keyring.Snapshot, version int) error {\n" +
				"	if _, v, err := l.cfg.Store.Load(ctx, l.file.Name); err == nil {\n		version = v\n	}\n"}}},
		{"a write replayed after a conflict", "races", []edit{{"rotator/reconcile.go",
			"				gone = nil\n				continue // drop everything",
			"				if _, v, err := l.cfg.Store.Load(ctx, l.file.Name); err == nil {\n					_ = l.save(ctx, out, v)\n				}\n" +
				"				gone = nil\n				continue // drop everything"}}},
		{"no read-back", "hurry,apart", []edit{{"keyring/plan.go",
			"			case observed && holds && !known && p.isFresh(seen):\n", "			case !known:\n"}}},
		{"unconditional publish", "", []edit{{"keyring/serve.go",
			`	return h.Lineage == "" || (h.Lineage == s.Lineage && h.Generation <= s.Generation)` + "\n", "	return true\n"}}},
		{"T from each replica's file", "revisions", []edit{{"keyring/plan.go",
			"	p.config()\n", "	p.config()\n	p.next.Config = p.in.File.Clone()\n"}}},
		{"revision ignored", "revisions", []edit{{"keyring/plan_config.go",
			"	case file.Revision > force.Revision:\n", "	case len(diff) > 0:\n"}}},
		{"a restored manifest taken as fresh", "restores", []edit{{"rotator/mark.go",
			"	switch seen := m.snapshot; {\n	case seen == nil:\n", "	switch seen := m.snapshot; {\n	case seen != nil:\n		return nil\n	case seen == nil:\n"}}},
		{"the mark not kept over a restart", "restores", []edit{{"rotator/mark.go",
			"	return m.put(m.path, doc)\n", "	_ = doc\n	return nil\n"}}},
		{"freeze without passing the versions", "restores", []edit{{"rotator/freeze.go",
			"	if highest < version || highest-version > maxVersions {\n", "	if true {\n"}}},
		{"accept and freeze without passing the versions", "restores", []edit{
			{"rotator/freeze.go", "	if highest < version || highest-version > maxVersions {\n", "	if true {\n"},
			{"rotator/freeze.go", "l.pass(ctx, held, version, highest)", "l.pass(ctx, held, version, 0)"}}},
		{"frozen ignored", "restores", []edit{{"keyring/plan.go",
			"	if s.Frozen != nil {\n", "	if false && s.Frozen != nil {\n"}}},
	}
}

// mutantsOfLife drop rules about a key's life.
func mutantsOfLife() []mutant {
	return []mutant{
		{"two standbys", "", []edit{{"keyring/plan_keys.go",
			"		if slices.ContainsFunc(p.next.standbys(r.Name), p.next.matches) {\n",
			"		if slices.ContainsFunc(p.next.standbys(r.Name), p.next.matches) && len(p.next.standbys(r.Name)) > 1 {\n"}}},
		{"rings born in two writes", "hurry", []edit{{"keyring/plan_keys.go",
			"	if len(ready) < len(p.next.Config.Rings) {\n		return\n	}\n", "	if len(ready) == 0 {\n		return\n	}\n"},
			{"keyring/plan_keys.go", "	for n, r := range p.next.Config.Rings {\n		// An issuer",
				"	for n, r := range p.next.Config.Rings[:1] {\n		// An issuer"},
			{"keyring/plan_keys.go", "		p.add(p.in.Fresh[i], r, false)\n", "		p.add(p.in.Fresh[i], r, p.next.Generation < 6)\n"}}},
		{"a late ring born at once", "revisions", []edit{{"keyring/plan_keys.go",
			"		p.add(p.in.Fresh[i], r, false)\n",
			"		p.add(p.in.Fresh[i], r, p.next.find(r.Name, func(*Key) bool { return true }) == nil)\n"}}},
		{"withdrawal of a key that is not closed", "rollbacks,races", []edit{{"keyring/state.go",
			"	case !k.Closed.IsZero() && !now.Before(k.WithdrawAt()):\n", "	case !k.Retired.IsZero() && !now.Before(k.WithdrawAt()):\n"}}},
		{"destruction without closing", "hurry", []edit{{"keyring/plan.go",
			"!k.Closed.IsZero() && k.Destroyed.IsZero() {\n			out = append(out, Half", "!k.Retired.IsZero() && k.Destroyed.IsZero() && s.WrittenAt.After(k.SignUntil) {\n			out = append(out, Half"}}},
		{"revoke to an unproven successor", "emergency", []edit{
			{"keyring/plan_keys.go", "	force := p.in.Command.Force && (asked || p.vacated(r.Name))\n", "	force := p.in.Command.Force && asked || p.vacated(r.Name)\n"},
			{"keyring/plan_keys.go", "		if !p.proven(next) {\n			next.Forced", "		if p.in.Command.Force && !p.proven(next) {\n			next.Forced"}}},
		{"a damaged standby promoted", "damage", []edit{
			{"keyring/plan_keys.go", "		if slices.Contains(p.in.Damaged, k.JWK.Kid) {\n			p.retire", "		if false {\n			p.retire"},
			{"keyring/plan_keys.go", "		case p.base.Key(k.JWK.Kid) == nil || slices.Contains(p.in.Damaged, k.JWK.Kid):\n", "		case p.base.Key(k.JWK.Kid) == nil:\n"}}},
		{"a closed key reinstated", "rollbacks,races", []edit{
			{"keyring/command.go", "	case !k.Closed.IsZero():\n", "	case false:\n"},
			{"keyring/command.go", "	k.Activated, k.Retired, k.SignUntil = p.in.Now, time.Time{}, time.Time{}\n",
				"	k.Activated, k.Retired, k.SignUntil, k.Closed = p.in.Now, time.Time{}, time.Time{}, time.Time{}\n"}}},
	}
}

// mutantsOfClocks drop what stops a wrong clock; all but the first are faults
// that the simulator found here.
func mutantsOfClocks() []mutant {
	return []mutant{
		{"no clock stop", "clocks", []edit{{"keyring/plan.go",
			"	why := in.ClockDoubt\n", "	why := \"\"\n"}}},
		{"a slow answer confirms the clock", "clocks", []edit{{"rotator/clock.go",
			"	case ok && quick:\n", "	case ok:\n"}}},
		{"the second reading is not guarded", "clocks,storm", []edit{{"rotator/reconcile.go",
			"in.Now, in.ClockDoubt = l.guard.now().Wall, l.guard.doubt(l.skew())", "in.Now = l.guard.now().Wall"}}},
		{"a read-back dated by the publisher", "clocks,storm", []edit{{"keyring/plan.go",
			"k.Confirmed[t.Name] = p.in.Now", "k.Confirmed[t.Name] = seen.At.UTC()"}}},
	}
}
