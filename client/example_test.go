package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/client/clienttest"
)

func Example() {
	c, err := client.New(client.Config{Socket: "/run/keyturn/sign.sock"}) // once per program
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := c.Sign(ctx, api.SignRequest{Profile: "orders", Subject: "user-7", Audience: api.Audience{"api://orders"}})
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Code == api.Forbidden:
		log.Fatal("this user may not sign with that profile: ", p.Detail)
	case client.Retryable(err):
		log.Fatal("later: ", err)
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(resp.Token)
}

func ExampleTransport() {
	c, err := client.New(client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	src := c.Source(api.SignRequest{Profile: "orders", Audience: api.Audience{"api://orders"}})
	hc := &http.Client{Transport: &client.Transport{Source: src}, Timeout: 10 * time.Second}
	resp, err := hc.Get("https://orders.example.com/v1/orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Status, resp.Body.Close())
}

func ExampleClient_SignBatch() {
	c, err := client.New(client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	results, err := c.SignBatch(context.Background(), []api.SignRequest{{Profile: "orders", Subject: "user-7"}, {Profile: "orders", Subject: "user-8"}})
	if err != nil {
		log.Fatal(err) // the daemon could not be asked
	}
	for _, r := range results {
		fmt.Println(r.Kid, r.Err) // each is judged alone
	}
}

// What docs/client.md shows of clienttest.
func TestAsDocumented(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{})
	hc := &http.Client{Transport: &client.Transport{Source: kt.Client().Source(api.SignRequest{Profile: "orders"}), Base: http.DefaultTransport}}
	s := newService(t)
	if status := do(t, hc, request(t, s.URL, nil)); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	http.DefaultClient.CloseIdleConnections()
	old := kt.Token(api.SignRequest{Profile: "orders", Subject: "user-7"})
	kt.Rotate()
	if _, err := verify(t, kt, old); err != nil {
		t.Error(err)
	}
}
