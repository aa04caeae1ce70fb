// This example is both ends of a call: a service that takes keyturn's tokens,
// and a program that calls it with tokens which stay fresh by themselves.
//
//	KEYTURN_SOCKET=/tmp/kt/sign.sock go run ./examples/go -profile dev -subject alice -audience demo -issuer http://127.0.0.1:9463
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
)

func main() {
	profile := flag.String("profile", "dev", "the profile to sign with")
	subject := flag.String("subject", "", "who the token is for, where the profile lets you choose")
	audience := flag.String("audience", "demo", "the service's name")
	issuer := flag.String("issuer", "", "the issuer's URL, where its key set is published")
	flag.Parse()
	req := api.SignRequest{Profile: *profile, Subject: *subject, Audience: api.Audience{*audience}}
	if err := run(context.Background(), req, *issuer); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, req api.SignRequest, issuer string) error {
	// The service. In production it runs elsewhere, behind TLS.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: &service{issuer: issuer, audience: req.Audience[0]}, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(ln) }() // ends with Close
	defer srv.Close()

	// The program that calls it: one Client and one Source for its whole life.
	c, err := client.New(client.Config{}) // KEYTURN_SOCKET names the socket
	if err != nil {
		return err
	}
	defer c.Close()
	hc := &http.Client{Transport: &client.Transport{Source: c.Source(req)}, Timeout: 10 * time.Second}
	for range 2 { // the second call sends the same token
		if err := call(ctx, hc, "http://"+ln.Addr().String()+"/orders"); err != nil {
			return err
		}
	}
	return nil
}

func call(ctx context.Context, hc *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s", resp.Status, body)
	return nil
}
