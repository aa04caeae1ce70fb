package publisher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

// Published looks, now, at what this replica's own file targets say was
// published of an issuer: the highest generation with its lineage, and where.
// A zero mark means that there is no trace of the issuer. A set without a
// manifest means that the manifest was lost, so a place that cannot be looked at
// is an error: nothing follows from not seeing.
func (p *Publisher) Published(ctx context.Context, issuer string) (keyring.Mark, string, error) {
	var mark keyring.Mark
	var where string
	is := p.issuers[issuer]
	if is == nil {
		return mark, "", nil
	}
	for _, t := range is.targets {
		f, ok := t.place.(*file)
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return keyring.Mark{}, "", err
		}
		found, err := f.trace()
		if err != nil {
			return keyring.Mark{}, "", fmt.Errorf("target %s: %w", t.conf.Name, err)
		}
		if found.Generation > mark.Generation {
			mark = found
			where = fmt.Sprintf("%s (by its side file %s)", f.path, f.name+sideSuffix)
		}
	}
	return mark, where, nil
}

// trace is what the target's side file says of this issuer; zero where there is
// none, or no directory. It may be called beside step: only what never changes is
// read of f, and the side file is replaced in one step.
func (f *file) trace() (keyring.Mark, error) {
	root, err := os.OpenRoot(filepath.Dir(f.path))
	if errors.Is(err, fs.ErrNotExist) {
		return keyring.Mark{}, nil
	}
	if err != nil {
		return keyring.Mark{}, fmt.Errorf("open the directory: %w", err)
	}
	defer root.Close()
	doc, err := atomicfile.Read(root, f.name+sideSuffix, maxSide)
	if errors.Is(err, fs.ErrNotExist) {
		return keyring.Mark{}, nil
	}
	if err != nil {
		return keyring.Mark{}, err
	}
	s, err := decodeSide(doc)
	if err != nil {
		return keyring.Mark{}, fmt.Errorf("side file %s cannot be read: %w; if it is not keyturn's, or nobody needs its set any more, remove it", f.path+sideSuffix, err)
	}
	if s.Issuer != f.issuer {
		return keyring.Mark{}, nil
	}
	return keyring.Mark{Lineage: s.Lineage, Generation: s.newest().Generation}, nil
}
