package harden

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// ErrNoLandlock: this kernel cannot confine a process, or not its writes.
var ErrNoLandlock = errors.New("this kernel has no Landlock that suffices (it takes Linux 6.2, with landlock among its LSMs)")

// MinABI is Landlock's first version that keeps a process from truncating files
// beyond its rules. Ports can be closed from 4 on (Linux 6.7), signals and
// abstract sockets from 6 on (Linux 6.12).
const MinABI = 3

// Access is what may be done under a path.
type Access int

// The accesses. None of them runs a program.
const (
	// Read files, and list folders.
	Read Access = iota
	// Write makes, writes and removes regular files, and reads.
	Write
	// Tree makes and removes folders, and does what Write does.
	Tree
	// Sockets makes and removes sockets, and does what Write does.
	Sockets
	// Vacate removes folders that are empty, and nothing else.
	Vacate
)

const (
	readFile  landlock.AccessFSSet = llsys.AccessFSReadFile
	writeFile                      = readFile | llsys.AccessFSWriteFile | llsys.AccessFSTruncate
	read                           = readFile | llsys.AccessFSReadDir
	write                          = read | writeFile | llsys.AccessFSMakeReg | llsys.AccessFSRemoveFile
	tree                           = write | llsys.AccessFSMakeDir | llsys.AccessFSRemoveDir
	sockets                        = write | llsys.AccessFSMakeSock
	vacate    landlock.AccessFSSet = llsys.AccessFSRemoveDir
)

func (a Access) rights() landlock.AccessFSSet {
	return [...]landlock.AccessFSSet{Read: read, Write: write, Tree: tree, Sockets: sockets, Vacate: vacate}[a]
}

// Rule allows an access at a path and at all that is under it. The kernel keeps
// the file or folder that stands there now, not the name: what takes its place
// later is not covered, unless a rule above it does.
type Rule struct {
	Path   string
	Access Access
}

// Confined is this process behind its rules. A nil one is a process that is not
// confined.
type Confined struct {
	abi  int
	held []held
}

// held is a rule, as the kernel has it.
type held struct {
	rights   landlock.AccessFSSet
	dev, ino uint64
}

// Confine lets this process do no more, for good, than the rules say and
// connect to these TCP ports. It listens on no further ones, signals nobody and
// joins no abstract socket beyond itself. Paths that are missing, or that it may
// not look at, are left out. What is open stays open. An older kernel than MinABI's gives ErrNoLandlock
// and nothing is restricted; between that and the newest, what it knows is.
//
// Beyond its reach: UDP, Unix sockets that have a path, multipath TCP, and what
// needs no file to be opened (stat, chmod, chown).
func Confine(rules []Rule, ports []uint16) (*Confined, error) {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < MinABI {
		return nil, ErrNoLandlock
	}
	c := &Confined{abi: abi}
	var all []landlock.Rule
	for _, r := range rules {
		info, err := os.Stat(r.Path)
		if err != nil {
			continue // what cannot be looked at cannot be opened
		}
		rights := r.Access.rights()
		if !info.IsDir() {
			rights &= writeFile // the others are those of folders
		}
		st := info.Sys().(*syscall.Stat_t) // as os has it on Linux
		c.held = append(c.held, held{rights, uint64(st.Dev), st.Ino})
		all = append(all, landlock.PathAccess(rights, r.Path))
	}
	for _, port := range ports {
		all = append(all, landlock.ConnectTCP(port))
	}
	if err := landlock.V6.BestEffort().Restrict(all...); err != nil {
		return nil, fmt.Errorf("confine: %w", err)
	}
	return c, nil
}

// ABI is the version of Landlock, 0 for a process that is not confined.
func (c *Confined) ABI() int {
	if c == nil {
		return 0
	}
	return c.abi
}

// Lacks reports whether the rules keep this process from an access at a path:
// because none named it, or since what stands there now is not what stood there
// then. A path that does not exist is judged by what it would stand in.
func (c *Confined) Lacks(path string, access Access) bool {
	if c == nil {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	for err != nil && path != "/" && path != "." {
		path = filepath.Dir(path)
		real, err = filepath.EvalSymlinks(path)
	}
	return err != nil || c.lacks(real, access.rights())
}

// lacks walks from a real path to the root, as the kernel does.
func (c *Confined) lacks(path string, want landlock.AccessFSSet) bool {
	for {
		if info, err := os.Stat(path); err == nil {
			if !info.IsDir() {
				want &= writeFile
			}
			st := info.Sys().(*syscall.Stat_t)
			for _, h := range c.held {
				if h.dev == uint64(st.Dev) && h.ino == st.Ino {
					want &^= h.rights
				}
			}
		}
		if want == 0 || path == filepath.Dir(path) {
			return want != 0
		}
		path = filepath.Dir(path)
	}
}
