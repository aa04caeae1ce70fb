package audit

import (
	"cmp"
	"fmt"
	"slices"
)

// report judges what was read.
func (v *verifier) report(heads []Head) Report {
	r := Report{Files: v.files, Records: v.records, Chains: []ChainReport{}, Damages: []Damage{}}
	told := map[int]bool{} // holes, by their place, that a chain explains
	for _, s := range v.order {
		c, damages := v.chain(s, told)
		r.Chains, r.Damages = append(r.Chains, c), append(r.Damages, damages...)
	}
	r.Damages = append(append(r.Damages, v.remaining(told)...), v.damages...)
	r.Damages = append(r.Damages, v.anchored(r.Chains, heads)...)
	slices.SortStableFunc(r.Damages, func(a, b Damage) int { return cmp.Compare(a.pos, b.pos) })
	r.Notes = append([]string{}, v.notes...)
	return r
}

func damage(kind Kind, at place, seq uint64, format string, args ...any) Damage {
	return Damage{kind, at.file, at.line, seq, fmt.Sprintf(format, args...), at.pos}
}

// chain walks over the segments of a chain in the order of their records.
func (v *verifier) chain(s *strand, told map[int]bool) (ChainReport, []Damage) {
	slices.SortStableFunc(s.segments, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.first.pos, b.first.pos))
	})
	var out []Damage
	now := s.segments[0]
	if now.from > 1 {
		v.note("chain %s begins at record %d here: older files are not among these", s.id, now.from)
	}
	from, blamed := now.from, false
	for _, next := range s.segments[1:] {
		var found []Damage
		switch {
		case next.from <= now.to:
			found, now = overlap(now, next)
		case next.from == now.to+1 && next.prev == now.hash:
			found = []Damage{damage(Reordered, next.first, next.from, "%s before record %d, which it follows", stand(next.from, next.to), now.to)}
			now = next
		case next.from == now.to+1:
			if !blamed || now.from != now.to { // a record that was put between two others fits neither
				found = []Damage{damage(Changed, now.last, now.to, "record %d was replaced, and its hash made anew: record %d follows another one", now.to, next.from)}
			}
			now = next
		default:
			found, now = v.gap(s, now, next, told), next
		}
		blamed = len(found) > 0 && found[0].Kind == Changed
		out = append(out, found...)
	}
	if s.skipped > 0 {
		v.note("chain %s is damaged throughout: %d more records follow nothing", s.id, s.skipped)
	}
	head := Head{Chain: s.id, Seq: now.to, Hash: string(now.hash[:]), Time: parseTime(s.lastTime), File: now.last.file}
	return ChainReport{
		Chain: s.id, Records: s.records, From: from, Head: head, FirstTime: parseTime(s.firstTime), LastTime: parseTime(s.lastTime),
	}, out
}

// stand names records as the subject of a sentence.
func stand(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d stands", from)
	}
	return fmt.Sprintf("records %d to %d stand", from, to)
}

// overlap judges records whose numbers are taken, and says where the chain goes on.
func overlap(now, next *segment) ([]Damage, *segment) {
	to := min(now.to, next.to)
	longer := now
	if next.to > now.to {
		longer = next
	}
	switch {
	case next.copied, next.to == now.to && next.hash == now.hash:
		return []Damage{damage(Duplicated, next.first, next.from, "%s there twice", stand(next.from, to))}, longer
	case next.to == now.to:
		return []Damage{damage(Inserted, next.first, next.from, "%s there twice, here and up to %s:%d, and nothing after them tells which are forged", stand(next.from, to), now.last.file, now.last.line)}, longer
	case longer == next:
		return []Damage{damage(Inserted, now.last, now.to, "%s there twice, and the chain does not go on from what stands here", stand(next.from, now.to))}, longer
	}
	return []Damage{damage(Inserted, next.first, next.from, "%s there twice, and the chain does not go on from what stands here", stand(next.from, to))}, longer
}

// gap explains missing records by lines between their neighbours that are none.
func (v *verifier) gap(s *strand, before, after *segment, told map[int]bool) []Damage {
	missing := after.from - before.to - 1
	var out []Damage
	for _, h := range v.holes {
		between := before.last.pos < h.pos && h.pos < after.first.pos
		foreign := h.chain != s.id && v.strands[h.chain] != nil
		if missing == 0 || h.torn || told[h.pos] || !between || foreign {
			continue
		}
		told[h.pos] = true
		missing--
		seq := before.to + 1 + uint64(len(out))
		out = append(out, damage(Changed, h.place, seq, "record %d was changed: %s", seq, h.why()))
	}
	if missing > 0 {
		out = append(out, damage(Dropped, after.first, after.from, "%d records between %d and %d are missing", missing, before.to, after.from))
	}
	return out
}

func (h hole) why() string {
	if h.seq > 0 {
		return "its hash is not that of the line"
	}
	return "the line is no record any more"
}

// remaining are lines that are no records and in no record's place.
func (v *verifier) remaining(told map[int]bool) (out []Damage) {
	plain := 0
	first, whole := v.firstRecord()
	for _, h := range v.holes {
		switch {
		case told[h.pos]:
		case h.torn:
			v.note("%s:%d: a write was cut off here, by a crash or a disk without room; nobody was told that this record was kept", h.file, h.line)
		case h.json && h.seq == 0 && h.pos < first && whole:
			plain++
		case h.seq > 0:
			out = append(out, damage(Changed, h.place, h.seq, "record %d was changed: %s", h.seq, h.why()))
		default:
			out = append(out, damage(Changed, h.place, 0, "this line is no record of a chain: it was changed, or put there"))
		}
	}
	if plain > 0 {
		v.note("%d lines before the first record are of no chain, and nothing protects them", plain)
	}
	return out
}

// firstRecord is where the first record stands, and whether its chain begins with it.
func (v *verifier) firstRecord() (pos int, whole bool) {
	pos = v.at.pos + 1
	for _, s := range v.order {
		for _, g := range s.segments {
			if g.first.pos < pos {
				pos, whole = g.first.pos, g.from == 1
			}
		}
	}
	return pos, whole
}

// anchored compares the chains with the heads that were kept elsewhere.
func (v *verifier) anchored(chains []ChainReport, heads []Head) (out []Damage) {
	if len(heads) == 0 {
		v.note("no anchor was given: records that are missing at the end, and a log that was written anew from some record on, cannot be seen")
		return nil
	}
	end := place{pos: v.at.pos + 1}
	for i := range chains {
		out = append(out, v.anchoredChain(&chains[i], heads)...)
	}
	newest := heads[len(heads)-1]
	switch {
	case len(chains) == 0:
		out = append(out, damage(Truncated, end, 0, "there is no record in these files, and record %d was anchored%s", newest.Seq, newest.at()))
	case v.strands[newest.Chain] == nil:
		out = append(out, Damage{Kind: Replaced, Seq: newest.Seq, pos: end.pos, Message: fmt.Sprintf(
			"the chain %s, anchored up to record %d%s, is not in these files: another log stands in its place, or the wrong files were named",
			newest.Chain, newest.Seq, newest.at())})
	}
	return out
}

// at says when a head was anchored; one that was given by hand has no time.
func (h Head) at() string {
	if h.Time.IsZero() {
		return ""
	}
	return " at " + h.Time.Format(stampForm)
}

const stampForm = "2006-01-02T15:04:05Z07:00"

func (v *verifier) anchoredChain(c *ChainReport, heads []Head) (out []Damage) {
	end := place{file: c.Head.File, pos: v.at.pos + 1}
	var beyond *Head
	good := uint64(0)
	first := v.strands[c.Chain].segments[0]
	var before *Head // the newest anchor of what is not here
	for _, h := range heads {
		if h.Chain == c.Chain && h.Seq < c.From && (before == nil || h.Seq > before.Seq) {
			before = &h
		}
		if h.Chain == c.Chain && h.Seq+1 == c.From && h.Hash != string(first.prev[:]) {
			out = append(out, damage(Changed, first.first, c.From, "record %d does not follow record %d as it was anchored%s: the log was written anew from here on",
				c.From, h.Seq, h.at()))
		}
		if h.Chain != c.Chain || h.Seq < c.From {
			continue
		}
		if h.Seq > c.Head.Seq {
			if beyond == nil || h.Seq > beyond.Seq {
				beyond = &h
			}
			continue
		}
		if _, ok := v.met[Head{Chain: h.Chain, Seq: h.Seq, Hash: h.Hash}]; ok {
			if good <= h.Seq {
				good, c.Anchored = h.Seq, &h
			}
			continue
		}
		at := end
		for have, where := range v.met {
			if have.Chain == h.Chain && have.Seq == h.Seq {
				at = where
			}
		}
		if at != end { // else the record is not there, which has been told
			out = append(out, damage(Changed, at, h.Seq, "record %d is not the one that was anchored%s: from a record after %d on, the log was written anew",
				h.Seq, h.at(), good))
		}
	}
	if beyond != nil {
		out = append(out, damage(Truncated, end, c.Head.Seq, "the log ends at record %d, and record %d was anchored%s: %d records or more are missing at the end",
			c.Head.Seq, beyond.Seq, beyond.at(), beyond.Seq-c.Head.Seq))
	}
	if before != nil {
		v.note("chain %s: record %d was anchored%s, and the records here begin at %d: those before are in files that are not among these, were rotated away, or were cut off",
			c.Chain, before.Seq, before.at(), c.From)
	}
	switch {
	case beyond != nil:
	case c.Anchored == nil:
		v.note("chain %s: no anchor falls into records %d to %d, so nothing shows whether they were written anew", c.Chain, c.From, c.Head.Seq)
	case c.Head.Seq > c.Anchored.Seq:
		v.note("chain %s is anchored up to record %d: the %d records after it could be cut off or written anew without a trace", c.Chain, c.Anchored.Seq, c.Head.Seq-c.Anchored.Seq)
	}
	return out
}
