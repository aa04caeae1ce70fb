package custodytest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/keyring"
)

// Heads is check-and-set on one document for each replica of an issuer: where
// its audit log is anchored.
type Heads interface {
	LoadHeads(ctx context.Context, r custody.Replica) ([]byte, int, error)
	SaveHeads(ctx context.Context, r custody.Replica, doc []byte, version int) error
}

func auditHeads(t *testing.T, open Open) {
	c := open(t, nil)
	host := custody.Replica{Issuer: issuer, Name: "host-1.example"}
	load := func(r custody.Replica, want string) int {
		t.Helper()
		doc, version, err := c.LoadHeads(ctx(t), r)
		if err != nil || string(doc) != want || (version == 0) != (doc == nil) {
			t.Fatalf("LoadHeads = %q, %d, %v; want %q", doc, version, err, want)
		}
		return version
	}
	saveHeads := func(r custody.Replica, doc string, version int, want error) {
		t.Helper()
		if err := c.SaveHeads(ctx(t), r, []byte(doc), version); !errors.Is(err, want) {
			t.Fatalf("SaveHeads = %v, want %v", err, want)
		}
	}
	load(host, "")
	saveHeads(host, "{}", 7, keyring.ErrConflict)
	saveHeads(host, `{"a":1}`, 0, nil)
	v1 := load(host, `{"a":1}`)
	saveHeads(host, "{}", 0, keyring.ErrConflict)
	saveHeads(host, `{"a":2}`, v1, nil)
	saveHeads(host, `{"a":3}`, v1, keyring.ErrConflict)
	load(host, `{"a":2}`)
	load(custody.Replica{Issuer: issuer, Name: "host-2"}, "")
	load(custody.Replica{Issuer: "other", Name: host.Name}, "")
	for _, bad := range []custody.Replica{{Issuer: issuer}, {Name: "host"}, {Issuer: issuer, Name: "../x"}, {Issuer: "a/b", Name: "host"}, {Issuer: issuer, Name: "+"}} {
		if _, _, err := c.LoadHeads(ctx(t), bad); err == nil {
			t.Errorf("LoadHeads(%+v) took it", bad)
		}
		if err := c.SaveHeads(ctx(t), bad, []byte("{}"), 0); err == nil {
			t.Errorf("SaveHeads(%+v) took it", bad)
		}
	}
	if kids, err := c.List(ctx(t), issuer); err != nil || len(kids) > 0 {
		t.Errorf("List = %q, %v: heads are no halves", kids, err)
	}
}

// Two daemons of one name: one of them wins.
func concurrentHeads(t *testing.T, open Open) {
	c := open(t, nil)
	host := custody.Replica{Issuer: issuer, Name: "host"}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = c.SaveHeads(ctx(t), host, fmt.Appendf(nil, `{"a":%d}`, i), 0) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, keyring.ErrConflict) {
			t.Errorf("a loser got %v, want ErrConflict", err)
		}
	}
	if won != 1 {
		t.Errorf("%d winners", won)
	}
}
