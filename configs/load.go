package configs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/configs/strictyaml"
	"github.com/keyturn/keyturn/internal/atomicfile"
)

// DefaultFile is read where neither --config nor KEYTURN_CONFIG names one.
const DefaultFile = "/etc/keyturn/keyturn.yaml"

// maxFile bounds a configuration, in bytes.
const maxFile = 1 << 20

// Options say where a configuration comes from.
type Options struct {
	// Flags that Flags registered, parsed. Nil where there are none.
	Flags *pflag.FlagSet
	// Environ is os.Environ(), or what a test puts in its place.
	Environ []string
	// Dev marks the try-out, in which Vault may be reached over plain HTTP.
	Dev bool
	// Judge finds what others know to be wrong (Config.Fault), so that all faults
	// are told at once. It may be handed a configuration that has faults, and
	// what follows from those is left out. Nil finds nothing.
	Judge func(*Config) []Fault
}

// Load reads the configuration that the options name. An error of type Faults
// lists all that is wrong with a file that could be read.
func Load(o Options) (*Config, []Warning, error) {
	over := newOverlay(o)
	file := over.file()
	doc, err := readFile(file)
	if err != nil {
		return nil, nil, err
	}
	return parse(doc, file, over, o)
}

// Sum is what Config.Sum would be, were the file loaded now. It does not wait
// for a pipe, which has no content to compare.
func Sum(file string) ([sha256.Size]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("look at configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return [sha256.Size]byte{}, fmt.Errorf("%s is no file", file)
	}
	doc, err := readFile(file)
	return sha256.Sum256(doc), err
}

// pipeTime bounds the wait for a configuration that comes through a pipe: of
// keyturn config check --config <(…), or a FIFO.
const pipeTime = time.Minute

// readFile reads a configuration, unless somebody else could have written it.
// Nobody waits for the other end of a FIFO to open it, and for its bytes no longer than pipeTime.
func readFile(path string) ([]byte, error) { return readWithin(path, pipeTime) }

func readWithin(path string, limit time.Duration) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, notOpened(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read configuration: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder: name the file in it", path)
	case info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("%s can be written by everybody, and it says who may sign: chmod o-w %s", path, path)
	case info.Mode().IsRegular(): // not the pipe of a shell's <(…)
		if err := atomicfile.CheckWriters(info); err != nil {
			return nil, fmt.Errorf("%s says who may sign: %w", path, err)
		}
	}
	var doc []byte
	if info.Mode()&fs.ModeNamedPipe != 0 {
		doc, err = readPipe(f, time.Now().Add(limit))
	} else {
		doc, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%s is a pipe, and no whole configuration came through it within %s", path, limit)
	case err != nil:
		return nil, fmt.Errorf("read configuration: %w", err)
	case len(doc) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d bytes, as no configuration is: name another file", path, maxFile)
	}
	return doc, nil
}

// readPipe reads to the end, or one byte more than a configuration may have.
func readPipe(f *os.File, end time.Time) ([]byte, error) {
	fifo := named(f)
	if err := f.SetReadDeadline(end); err != nil {
		return nil, err
	}
	for {
		doc, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		if len(doc) > 0 || err != nil || !fifo {
			return doc, err
		}
		time.Sleep(pipePause) // until the deadline: a read after it fails
	}
}

// named tells a FIFO from a shell's pipe, which has ended when it says so: a FIFO
// also reads as if it had while nobody has opened it for writing yet.
func named(f *os.File) bool {
	const pipefs = 0x50495045 // statfs(2)
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var at syscall.Statfs_t
	failed := raw.Control(func(fd uintptr) { err = syscall.Fstatfs(int(fd), &at) })
	return failed == nil && err == nil && at.Type != pipefs
}

// pipePause is how long to wait before a FIFO is read again.
const pipePause = 20 * time.Millisecond

// notOpened says why a file cannot be read, and what to do about it.
func notOpened(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no configuration at %s: name one with --config FILE or KEYTURN_CONFIG", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("read configuration: %w: uid %d has to be allowed to read it (chgrp and chmod g+r, say) and to enter the folders above it", err, os.Geteuid())
	}
	return fmt.Errorf("read configuration: %w", err)
}

// parse turns a file's bytes and the overlay into a configuration.
func parse(doc []byte, file string, over *overlay, o Options) (*Config, []Warning, error) {
	cfg, src := new(Config), &source{file: file, overlaid: map[string]string{}}
	faults, err := decode(doc, cfg, src)
	if err != nil {
		return nil, nil, err
	}
	cfg.File, cfg.Sum, cfg.Lines = file, sha256.Sum256(doc), src.lines
	over.apply(cfg, src)
	v := &validator{cfg: cfg, src: src, over: over, dev: o.Dev}
	v.paths()
	v.defaults()
	v.validate()
	broken, unread := len(faults) > 0, map[string]bool{}
	for _, f := range faults {
		unread[f.Path] = true
	}
	for _, f := range v.faults {
		if unread[f.Path] {
			continue // what stands there in its place is not from the file
		}
		// beside a field that could not be read, "is missing" and "there is no
		// such ring" are most likely its echo
		if !broken || !f.follows {
			faults = append(faults, f)
		}
	}
	if o.Judge != nil {
		faults = append(faults, v.notEchoes(o.Judge(cfg), faults)...)
	}
	if len(faults) > 0 {
		sortFaults(faults)
		return nil, nil, faults
	}
	return cfg, append(over.warnings(), v.warnings...), nil
}

// decode fills a configuration from the bytes and a source with its lines. Faults
// go with what could be read all the same, so that a caller can look for more.
func decode(doc []byte, cfg *Config, src *source) (Faults, error) {
	lines, found, err := strictyaml.Decode(doc, cfg, refusals())
	var broken *strictyaml.SyntaxError
	switch {
	case errors.Is(err, strictyaml.ErrEmpty):
		return nil, fmt.Errorf("%s %w: configs/keyturn.yaml is a whole one to start from", src.file, err)
	case errors.As(err, &broken):
		return nil, Faults{src.at(broken.Line, "", broken.Message)}
	}
	src.lines = lines
	var faults Faults
	for _, f := range found {
		faults = append(faults, src.at(f.Line, f.Path, f.Message))
	}
	return faults, err
}

// absolute starts a relative path at a folder.
func absolute(base, path string) (string, error) {
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	return filepath.Abs(filepath.Join(base, path))
}
