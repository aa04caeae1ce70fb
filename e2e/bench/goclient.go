package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/e2e/bench/load"
)

// goClientCommand asks with net/http and encoding/json, as a Go program would
// that uses nothing of ours: what a token costs with a client that is not lean.
func goClientCommand(args []string) error {
	fs := flag.NewFlagSet("bench goclient", flag.ContinueOnError)
	socket := fs.String("socket", "", "sign socket of the daemon")
	conns := fs.Int("c", 16, "connections")
	length := fs.Duration("d", 2*time.Second, "how long is measured")
	pid := fs.Int("pid", 0, "the daemon's process")
	if err := fs.Parse(args); err != nil {
		return err
	}
	tr := &http.Transport{MaxIdleConnsPerHost: *conns, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", *socket)
	}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	var (
		wg     sync.WaitGroup
		tokens atomic.Int64
		ended  atomic.Bool
		faults = make([]error, *conns)
	)
	for i := range faults {
		wg.Go(func() {
			for !ended.Load() && faults[i] == nil {
				faults[i] = askOnce(client)
				tokens.Add(1)
			}
		})
	}
	time.Sleep(min(*length/4, 500*time.Millisecond)) // connections and pools
	res, err := window(*pid, *length, &tokens)
	ended.Store(true)
	wg.Wait()
	if err := errors.Join(append(faults, err)...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// window counts for some time, of tokens and of processor time.
func window(pid int, length time.Duration, tokens *atomic.Int64) (load.Result, error) {
	own, err := load.ProcessCPU(os.Getpid())
	server, err2 := load.ProcessCPU(pid)
	before, began := tokens.Load(), time.Now()
	for time.Sleep(length); tokens.Load() == before && time.Since(began) < length+10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	n, elapsed := tokens.Load()-before, time.Since(began)
	ownAfter, err3 := load.ProcessCPU(os.Getpid())
	serverAfter, err4 := load.ProcessCPU(pid)
	return load.Result{Requests: n, Tokens: n, Elapsed: elapsed, LoadCPU: ownAfter - own, ServerCPU: serverAfter - server},
		errors.Join(err, err2, err3, err4)
}

func askOnce(client *http.Client) error {
	ttl := int64(300)
	body, err := json.Marshal(api.SignRequest{Profile: "es256", Subject: "user-1000", Audience: api.Audience{"api://orders"}, TTLSeconds: &ttl,
		Claims: map[string]json.RawMessage{"tenant": []byte(`"acme"`), "scope": []byte(`"orders:read orders:write"`)}})
	if err != nil {
		return err
	}
	resp, err := client.Post("http://keyturn/v1/sign", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var out api.SignResponse
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || out.Token == "" {
		return fmt.Errorf("no token: %s", resp.Status)
	}
	return nil
}
