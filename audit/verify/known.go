package verify

import (
	"slices"

	"github.com/keyturn/keyturn/audit"
)

// known compares the chains with the heads that were kept elsewhere.
func (v *verifier) known(chains []ChainReport, known Known) (out []Damage) {
	switch {
	case len(chains) == 0:
		v.note("there is no record in these files, so nothing is shown")
	case len(v.heads) == 0:
		v.note("no anchor was given: records that are missing at the end, and a log that was written anew from some record on, cannot be seen; --config and --anchor give one")
		return nil
	}
	for i := range chains {
		out = append(out, v.anchored(&chains[i])...)
	}
	for i, h := range newestOf(known.Anchors) {
		switch {
		case v.strands[h.Chain] != nil:
		case i == 0:
			out = append(out, v.absent(h))
		default:
			v.note("chain %s, anchored up to record %d%s, is not in these files: a log before this one", h.Chain, h.Seq, since(h))
		}
	}
	for _, h := range known.Held {
		out = append(out, v.held(h)...)
	}
	return out
}

// newestOf is the anchor of each chain that was kept last, the newest first.
func newestOf(anchors []audit.Head) (out []audit.Head) {
	byAge := slices.Clone(anchors)
	slices.Reverse(byAge) // of those without a time the last counts
	slices.SortStableFunc(byAge, func(a, b audit.Head) int { return b.Time.Compare(a.Time) })
	for _, h := range byAge {
		if !slices.ContainsFunc(out, func(have audit.Head) bool { return have.Chain == h.Chain }) {
			out = append(out, h)
		}
	}
	return out
}

// absent is a head of whose chain nothing is there.
func (v *verifier) absent(h audit.Head) Damage {
	end := place{pos: v.at.pos + 1}
	if v.records == 0 {
		return damage(Truncated, end, h.Seq, "there is no record in these files, and record %d of chain %s was anchored%s", h.Seq, h.Chain, since(h))
	}
	return damage(Replaced, end, h.Seq, "the chain %s, anchored up to record %d%s, is not in these files: another log stands in its place, or the wrong files were named",
		h.Chain, h.Seq, since(h))
}

// held tells of a record that has to be there and is before the first one.
func (v *verifier) held(h audit.Head) []Damage {
	s := v.strands[h.Chain]
	if s == nil {
		return []Damage{v.absent(h)}
	}
	if first := s.segments[0]; h.Seq < first.from {
		return []Damage{damage(Dropped, first.first, first.from, "record %d has to be in the log, and chain %s begins at record %d: name the older files, too, if they are kept somewhere",
			h.Seq, h.Chain, first.from)}
	}
	return nil
}

// since says when a head was anchored; one that was given by hand has no time.
func since(h audit.Head) string {
	if h.Time.IsZero() {
		return ""
	}
	return " at " + h.Time.UTC().Format("2006-01-02T15:04:05Z07:00")
}

// anchored holds the heads of a chain against its records, and keeps the newest
// that is there in the report.
func (v *verifier) anchored(c *ChainReport) (out []Damage) {
	var before, beyond *audit.Head
	var wrong []audit.Head
	for _, h := range v.heads {
		switch _, met := v.met[placeless(h)]; {
		case h.Chain != c.Chain:
		case h.Seq < c.From:
			before = newer(before, h)
			out = append(out, v.unfollowed(c, h)...)
		case h.Seq > c.Head.Seq:
			beyond = newer(beyond, h)
		case met:
			c.Anchored = newer(c.Anchored, h)
		default:
			wrong = append(wrong, h)
		}
	}
	out = append(out, v.rewritten(c, wrong)...)
	if before != nil {
		v.note("chain %s: of the records before %d, record %d was anchored%s", c.Chain, c.From, before.Seq, since(*before))
	}
	switch {
	case beyond != nil:
		out = append(out, v.truncated(c, *beyond))
	case c.Anchored == nil:
		v.note("chain %s: no anchor falls into records %d to %d, so nothing shows whether they were written anew", c.Chain, c.From, c.Head.Seq)
	case c.Head.Seq > c.Anchored.Seq:
		v.note("chain %s is anchored up to record %d: what follows, %s, could be cut off or written anew without a trace",
			c.Chain, c.Anchored.Seq, records(c.Head.Seq-c.Anchored.Seq))
	}
	return out
}

func newer(have *audit.Head, h audit.Head) *audit.Head {
	if have != nil && have.Seq > h.Seq {
		return have
	}
	return &h
}

// knows reports whether the last record of a segment is one of the heads.
func (v *verifier) knows(s *strand, g *segment) bool {
	last := audit.Head{Chain: s.id, Seq: g.to, Hash: string(g.hash[:])}
	return slices.ContainsFunc(v.heads, last.Same)
}

// placeless is a head by its record alone.
func placeless(h audit.Head) audit.Head {
	return audit.Head{Chain: h.Chain, Seq: h.Seq, Hash: h.Hash}
}

// unfollowed tells of a first record that follows another one than the anchored.
func (v *verifier) unfollowed(c *ChainReport, h audit.Head) []Damage {
	first := v.strands[c.Chain].segments[0]
	if h.Seq+1 != c.From || h.Hash == string(first.prev[:]) {
		return nil
	}
	return []Damage{damage(Changed, first.first, c.From, "record %d does not follow record %d as it was anchored%s: the log was written anew from here on",
		c.From, h.Seq, since(h))}
}

// rewritten tells of the first record that stands where another one was
// anchored. Where none stands, that has been told.
func (v *verifier) rewritten(c *ChainReport, wrong []audit.Head) []Damage {
	var first *audit.Head
	var at place
	for have, where := range v.met {
		for _, h := range wrong {
			if have.Chain == h.Chain && have.Seq == h.Seq && (first == nil || h.Seq < first.Seq || h.Seq == first.Seq && where.pos < at.pos) {
				first, at = &h, where
			}
		}
	}
	if first == nil {
		return nil
	}
	from := c.From
	for _, h := range v.heads {
		if _, met := v.met[placeless(h)]; met && h.Chain == c.Chain && from <= h.Seq && h.Seq < first.Seq {
			from = h.Seq + 1
		}
	}
	return []Damage{damage(Changed, at, first.Seq, "record %d is not the one that was anchored%s: from record %d on, or one of those after it, the log was written anew",
		first.Seq, since(*first), from)}
}

// truncated tells of a record that was anchored and is beyond the last one.
func (v *verifier) truncated(c *ChainReport, beyond audit.Head) Damage {
	are, how := "are", "missing"
	if beyond.Seq == c.Head.Seq+1 {
		are = "is"
	}
	for _, h := range v.holes {
		if h.Chain == c.Chain && h.Seq > c.Head.Seq {
			how = "missing or changed"
		}
	}
	at := v.strands[c.Chain].end
	at.pos = v.at.pos + 1
	return damage(Truncated, at, c.Head.Seq,
		"the log ends at record %d, and record %d was anchored%s: %s or more %s %s at the end; name the newer files, too, if there are any",
		c.Head.Seq, beyond.Seq, since(beyond), records(beyond.Seq-c.Head.Seq), are, how)
}
