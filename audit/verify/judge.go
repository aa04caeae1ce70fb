package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/audit"
)

// report judges what was read.
func (v *verifier) report(known Known) Report {
	r := Report{Files: v.files, Records: v.records, Chains: []ChainReport{}, Damages: []Damage{}}
	told := map[int]bool{} // holes, by their place, that a chain explains
	for _, s := range v.order {
		c, damages := v.chain(s, told)
		r.Chains, r.Damages = append(r.Chains, c), append(r.Damages, damages...)
	}
	v.several()
	r.Damages = append(append(r.Damages, v.remaining(told)...), v.damages...)
	r.Damages = append(r.Damages, v.known(r.Chains, known)...)
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
	from, blamed := now.from, false
	v.beginning(s, now)
	for _, next := range s.segments[1:] {
		var found []Damage
		switch {
		case next.from <= now.to:
			found, now = overlap(now, next)
		case next.from == now.to+1 && next.prev == now.hash:
			found = []Damage{damage(Reordered, next.first, next.from, "record %d stands before record %d, which it follows and which is at %s", next.from, now.to, now.last)}
			now = next
		case next.from == now.to+1 && v.knows(s, now):
			found = []Damage{damage(Changed, next.first, next.from, "record %d does not follow record %d, which was anchored: the log was written anew from here on", next.from, now.to)}
			now = next
		case next.from == now.to+1:
			if !blamed || now.from != now.to { // a record that was put between two others fits neither
				found = []Damage{damage(Changed, now.last, now.to, "record %d is not the one that record %d follows: one of them was replaced, and its hash made anew", now.to, next.from)}
			}
			now = next
		default:
			found, now = v.gap(s, now, next, told), next
		}
		blamed = len(found) > 0 && found[0].Kind == Changed
		out = append(out, found...)
	}
	if s.skipped > 0 {
		v.note("chain %s is damaged throughout: %s more follow nothing", s.id, records(s.skipped))
	}
	s.end = now.last
	head := audit.Head{Chain: s.id, Seq: now.to, Hash: string(now.hash[:]), Time: parseTime(s.lastTime), File: now.last.file}
	return ChainReport{
		Chain: s.id, Records: s.records, From: from, Head: head, FirstTime: parseTime(s.firstTime), LastTime: parseTime(s.lastTime),
	}, out
}

// beginning says what is not there before the first record of a chain.
func (v *verifier) beginning(s *strand, first *segment) {
	from := first.from
	for _, h := range v.holes { // records that were changed are told as such
		if h.pos < first.first.pos && h.Chain == s.id && h.Seq > 0 {
			from = min(from, h.Seq)
		}
	}
	if from > 1 {
		v.note("chain %s begins at record %d here, at %s: those before are in older files that are not named or were deleted, or they were cut off. Nothing in the log tells which; --head with a record of an earlier answer does",
			s.id, from, first.first)
	}
}

// maxNamed is how many chains are named in one note.
const maxNamed = 10

// several is what a reader has to know where the files hold more than one chain.
func (v *verifier) several() {
	if len(v.order) < 2 {
		return
	}
	var list []string
	for _, s := range v.order[:min(maxNamed, len(v.order))] {
		list = append(list, fmt.Sprintf("%s from %s on", s.id, s.begin))
	}
	if more := len(v.order) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	v.note("there are %d chains: %s. Each replica has one: a second one of the same replica is a log that began anew because the first was lost, or another that was put in its place",
		len(v.order), strings.Join(list, ", "))
}

// records counts in words.
func records[N int | uint64](n N) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
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
		advice := ""
		if next.first.file != now.last.file {
			advice = "; name a file and its copy, packed or not, only once"
		}
		return []Damage{damage(Duplicated, next.first, next.from, "%s there twice, and here for the second time%s", stand(next.from, to), advice)}, longer
	case next.to == now.to:
		return []Damage{damage(Inserted, next.first, next.from, "%s there twice, here and up to %s, and nothing after them tells which are forged", stand(next.from, to), now.last)}, longer
	case longer == next:
		return []Damage{damage(Inserted, now.last, now.to, "%s there twice, and the chain does not go on from what stands here: it was put there", stand(next.from, now.to))}, longer
	}
	return []Damage{damage(Inserted, next.first, next.from, "%s there twice, and the chain does not go on from what stands here: it was put there", stand(next.from, to))}, longer
}

// gap explains missing records by lines between their neighbours that are none.
func (v *verifier) gap(s *strand, before, after *segment, told map[int]bool) []Damage {
	missing := after.from - before.to - 1
	var out []Damage
	for _, h := range v.holes {
		between := before.last.pos < h.pos && h.pos < after.first.pos
		foreign := h.Chain != s.id && v.strands[h.Chain] != nil
		if missing == 0 || h.torn || h.vouched || told[h.pos] || !between || foreign {
			continue
		}
		told[h.pos] = true
		missing--
		seq := before.to + 1 + uint64(len(out))
		out = append(out, damage(Changed, h.place, seq, "record %d was changed: %s", seq, h.why()))
	}
	if missing == 0 {
		return out
	}
	is, advice := "are", ""
	if missing == 1 {
		is = "is"
	}
	if before.last.file != after.first.file {
		advice = fmt.Sprintf("; where there is a file between %s and %s, name it, too", before.last.file, after.first.file)
	}
	return append(out, damage(Dropped, after.first, after.from, "%s between %d and %d %s missing%s", records(missing), before.to, after.from, is, advice))
}

func (h hole) why() string {
	if h.Seq > 0 {
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
		case h.vouched:
			v.note("%s: a write was cut off here, by a crash or by a disk without room, as the record after it tells; nobody was told that this one was kept", h.place)
		case h.torn:
			v.note("%s: a write was cut off here: by a crash, by a disk without room or by somebody who cut the file, or it has not ended yet; nothing in the log tells which", h.place)
		case h.json && h.Seq == 0 && h.pos < first && whole:
			plain++
		case h.Seq > 0:
			out = append(out, damage(Changed, h.place, h.Seq, "record %d was changed: %s", h.Seq, h.why()))
		default:
			out = append(out, damage(Changed, h.place, 0, "this line is no record of a chain: it was changed, or put there"))
		}
	}
	if v.skipped > 0 {
		v.note("there is little but damage: %d more lines are no records", v.skipped)
	}
	if plain > 0 {
		v.note("lines before the first record that are of no chain: %d; nothing protects them", plain)
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
