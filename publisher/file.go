package publisher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

// file is a file target.
type file struct {
	issuer string
	path   string // absolute
	name   string // its last element

	// last is the side file as this process last wrote it, or found it and knew
	// it for its own: for the day on which somebody spoils it.
	last  *side
	ahead ahead
	swept bool
}

func newFile(issuer string, t Target) (*file, error) {
	path, err := filepath.Abs(t.File)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", t.File, err)
	}
	return &file{issuer: issuer, path: path, name: filepath.Base(path)}, nil
}

// held is what stands at the target.
type held struct {
	exists bool
	body   []byte
	side   *side    // nil: none
	set    *sideSet // which of the side file's sets the file holds; nil: none of them
	spoilt bool     // the side file was not as this process had left it
}

// holds is the set in the file; of one that was changed or is gone, the newest
// that may have been there.
func (h *held) holds() keyring.Held {
	switch {
	case h.set != nil:
		return h.side.held(*h.set)
	case h.side != nil:
		return h.side.held(h.side.newest())
	}
	return keyring.Held{}
}

// away reports that the file is gone and its time is over: it was taken away.
func (h *held) away(late time.Time) bool { return !h.exists && h.holds().Expired(late) }

// drifted reports that the files are not as this issuer's keyturn left them. A
// file that is gone may have held the oldest set that is listed, and have been
// taken away with that.
func (h *held) drifted(issuer string, late time.Time) bool {
	switch {
	case h.side == nil || h.side.Issuer != issuer:
		return false
	case h.spoilt || (h.exists && h.set == nil):
		return true
	}
	return !h.exists && !h.side.held(h.side.Sets[0]).Expired(late)
}

// visit is one step's work at the target.
type visit struct {
	*file
	job
	root *os.Root
	held held
	// lockErr is why the lock could not be had; without it nothing is written.
	lockErr error
	report  report
}

// step compares and replaces under the lock, reads back, and takes away what
// is too old. Where the lock is not to be had it still reads: a read-only
// directory holds a set that consumers go on fetching.
func (f *file) step(ctx context.Context, j job) report {
	v := &visit{file: f, job: j}
	root, err := os.OpenRoot(filepath.Dir(f.path))
	if err != nil {
		v.fail(CodePublishFailed, j.required, fmt.Errorf("open the directory: %w", err))
		return v.report
	}
	defer root.Close()
	v.root = root
	unlock, lockErr := lock(ctx, root, f.name+lockSuffix)
	v.lockErr = lockErr
	if lockErr == nil {
		defer unlock()
		v.sweep()
	}
	if v.held, err = f.look(root); err != nil {
		v.fail(CodePublishRefused, j.required, err)
		return v.report
	}
	if lockErr != nil {
		v.fail(CodePublishFailed, j.required && !v.held.exists, lockErr)
	} else {
		v.report.drifted = v.held.drifted(f.issuer, j.clock.Late)
	}
	if j.snapshot != nil {
		v.publish()
	}
	v.readBack()
	v.expire()
	if !v.held.exists && len(v.report.faults) == 0 {
		v.fail(CodeNotPublished, j.required, fmt.Errorf("%s is not there yet: no key set has arrived", f.path))
	}
	return v.report
}

// look reads the file and its side file. An error means that the target is
// not as keyturn leaves one, so that it is not ours to touch.
func (f *file) look(root *os.Root) (held, error) {
	var h held
	body, err := atomicfile.Read(root, f.name, maxSet)
	switch {
	case err == nil:
		h.exists, h.body = true, body
	case errors.Is(err, atomicfile.ErrTooLarge):
		h.exists = true // no set of ours, but it may have taken the place of one
	case !errors.Is(err, fs.ErrNotExist):
		return held{}, err
	}
	doc, err := atomicfile.Read(root, f.name+sideSuffix, maxSide)
	if err == nil {
		h.side, err = decodeSide(doc)
	}
	switch {
	case err == nil:
	case errors.Is(err, atomicfile.ErrNotRegular):
		return held{}, err
	case f.last != nil: // somebody removed or spoilt it since we looked
		h.side, h.spoilt = f.last, true
	case !errors.Is(err, fs.ErrNotExist):
		return held{}, fmt.Errorf("the side file %s cannot be read (%w), so nobody knows whose set %s is: if no consumer needs its keys any more, remove both files", f.path+sideSuffix, err, f.path)
	}
	if h.exists && h.side != nil {
		h.set = h.side.holding(digest(h.body))
	}
	return h, nil
}

func (v *visit) fail(code string, fatal bool, err error) { v.report.fail(code, fatal, err) }

// sweep removes, once, what crashed writers left. The lock is held, so nobody
// is writing.
func (v *visit) sweep() {
	if v.swept {
		return
	}
	err := errors.Join(atomicfile.Sweep(v.root, v.name), atomicfile.Sweep(v.root, v.name+sideSuffix))
	if err != nil {
		v.fail(CodePublishFailed, false, fmt.Errorf("remove temp files: %w", err))
		return
	}
	v.swept = true
}

// readBack reports the set that the file holds now, as a consumer reads it.
func (v *visit) readBack() {
	v.report.serveUntil = v.held.holds().ServeUntil
	if !v.held.exists {
		return
	}
	set, err := parseSet(v.held.body)
	if err != nil {
		if len(v.report.faults) == 0 { // else it is known why
			v.fail(CodePublishFailed, v.required, fmt.Errorf("read %s back: %w", v.path, err))
		}
		return
	}
	v.report.set, v.report.readAt = set, time.Now()
	if v.held.set != nil {
		v.report.generation = v.held.set.Generation
	}
}
