package profile

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
)

// symbols are the functions of a binary, by address.
type symbols struct {
	list []elf.Symbol
	// base is what an address lacks that perf counts from the start of the file.
	base, first, last uint64
}

func readSymbols(path string) (symbols, error) {
	f, err := elf.Open(path)
	if err != nil {
		return symbols{}, fmt.Errorf("symbols: %w", err)
	}
	defer f.Close()
	var t symbols
	list, err := f.Symbols()
	if err != nil {
		return symbols{}, errors.Join(fmt.Errorf("symbols of %s: build it without -s -w", path), err)
	}
	for _, s := range list {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value > 0 {
			t.list = append(t.list, s)
		}
	}
	slices.SortFunc(t.list, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			t.base, t.first, t.last = p.Vaddr-p.Off, p.Vaddr, p.Vaddr+p.Filesz
		}
	}
	return t, nil
}

// name is the function at an address. perf gives addresses that it has no name
// for as offsets in the file.
func (t symbols) name(addr uint64) string {
	if addr < t.last-t.base {
		addr += t.base
	}
	if addr < t.first || addr >= t.last {
		return "[outside]"
	}
	i, found := slices.BinarySearchFunc(t.list, addr, func(s elf.Symbol, a uint64) int { return cmp.Compare(s.Value, a) })
	if !found {
		i--
	}
	if i < 0 {
		return "[outside]"
	}
	return t.list[i].Name
}
