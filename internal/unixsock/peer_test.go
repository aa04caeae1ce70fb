package unixsock

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serve answers every request on a socket with the peer that it saw.
func serve(t *testing.T, cfg Config) {
	t.Helper()
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ConnContext: ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := PeerFrom(r.Context())
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if err := json.NewEncoder(w).Encode(p); err != nil {
			t.Error(err)
		}
	})}
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestPeerOfAnotherUser(t *testing.T) {
	path := filepath.Join(openDirFor(t), "sign.sock")
	serve(t, Config{Path: path, Mode: 0o666, GID: -1})
	many := make([]uint32, 300) // more than the first buffer holds
	for i := range many {
		many[i] = uint32(10_000 + i)
	}
	for name, who := range map[string]syscall.Credential{
		"no supplementary group": {Uid: 1234, Gid: 2345},
		"two groups":             {Uid: 1234, Gid: 2345, Groups: []uint32{3456, 4567}},
		"many groups":            {Uid: 1234, Gid: 2345, Groups: many},
		"largest ids":            {Uid: 1<<32 - 2, Gid: 1<<32 - 2, Groups: []uint32{1<<32 - 3}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := clientAs(t, path, who)
			if err != nil {
				t.Fatalf("client: %v: %s", err, out)
			}
			var got Peer
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got.PID <= 0 || int(got.PID) == os.Getpid() {
				t.Errorf("pid %d, want the client's", got.PID)
			}
			slices.Sort(got.Groups)
			want := Peer{PID: got.PID, UID: who.Uid, GID: who.Gid, Groups: who.Groups}
			if len(got.Groups)+len(want.Groups) == 0 {
				got.Groups, want.Groups = nil, nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("peer (-want +got):\n%s", diff)
			}
			for _, gid := range append(slices.Clone(who.Groups), who.Gid) {
				if !got.HasGID(gid) {
					t.Errorf("HasGID(%d) = false", gid)
				}
			}
		})
	}
}

// TestModeKeepsOthersOut: the mode of the socket decides before the daemon does.
func TestModeKeepsOthersOut(t *testing.T) {
	path := filepath.Join(openDirFor(t), "sign.sock")
	serve(t, Config{Path: path, Mode: 0o660, GID: 2345})
	if out, err := clientAs(t, path, syscall.Credential{Uid: 1234, Gid: 2345}); err != nil {
		t.Errorf("a member of the group: %v: %s", err, out)
	}
	if out, err := clientAs(t, path, syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{2345}}); err != nil {
		t.Errorf("a supplementary member of the group: %v: %s", err, out)
	}
	if out, err := clientAs(t, path, syscall.Credential{Uid: 1234, Gid: 1234}); err == nil {
		t.Errorf("a stranger got %s", out)
	}
}

func TestPeerOfThisProcess(t *testing.T) {
	l := mustListen(t, Config{Path: filepath.Join(t.TempDir(), "s"), GID: -1})
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	srv, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	got, ok := PeerFrom(ConnContext(t.Context(), srv))
	if !ok || int(got.PID) != os.Getpid() || !got.HasUID(uint32(os.Geteuid())) || !got.HasGID(uint32(os.Getegid())) {
		t.Errorf("peer = %+v, %t; want this process", got, ok)
	}
}

func TestNoPeer(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	over, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	for name, conn := range map[string]net.Conn{"pipe": left, "tcp": over} {
		if p, err := PeerOf(conn); err == nil {
			t.Errorf("%s: PeerOf = %+v, want an error", name, p)
		}
		p, ok := PeerFrom(ConnContext(t.Context(), conn))
		if ok || p.HasUID(0) || p.HasGID(0) || p.HasUID(p.UID) || p.HasGID(p.GID) {
			t.Errorf("%s: PeerFrom = %+v, %t; want nobody", name, p, ok)
		}
	}
}

func TestPeerMatches(t *testing.T) {
	p := Peer{UID: 1000, GID: 1000, Groups: []uint32{27, 2000}}
	foreign := Peer{UID: Overflow, GID: Overflow, Groups: []uint32{Overflow}}
	for name, tc := range map[string]struct{ got, want bool }{
		"own uid":              {p.HasUID(1000), true},
		"other uid":            {p.HasUID(0), false},
		"primary gid":          {p.HasGID(1000), true},
		"supplementary gid":    {p.HasGID(2000), true},
		"other gid":            {p.HasGID(0), false},
		"overflow uid":         {foreign.HasUID(Overflow), false},
		"overflow gid":         {foreign.HasGID(Overflow), false},
		"overflow among many":  {Peer{GID: 1, Groups: []uint32{Overflow}}.HasGID(Overflow), false},
		"unknown uid":          {unknown().HasUID(Unknown), false},
		"unknown gid":          {unknown().HasGID(Unknown), false},
		"zero value is no one": {Peer{}.HasGID(5), false},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %t, want %t", name, tc.got, tc.want)
		}
	}
	if got, ok := PeerFrom(WithPeer(context.Background(), p)); !ok || got.UID != 1000 {
		t.Errorf("PeerFrom(WithPeer) = %+v, %t", got, ok)
	}
}
