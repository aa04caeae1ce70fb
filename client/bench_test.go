package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
)

// answering serves a socket that gives one answer, so that what is measured is
// the client.
func answering(tb testing.TB, answer []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	tb.Cleanup(func() { _ = srv.Close(); <-done })
	return path
}

func benchAnswer(tb testing.TB) []byte {
	tb.Helper()
	doc, err := json.Marshal(api.SignResponse{Token: string(bytes.Repeat([]byte("x"), 400)), Kid: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", ExpiresAt: fixedTime, ExpiresIn: 300})
	if err != nil {
		tb.Fatal(err)
	}
	return append(doc, '\n')
}

func benchRequest() api.SignRequest {
	return api.SignRequest{Profile: "orders", Subject: "user-7", Audience: api.Audience{"api://orders"}, Claims: map[string]json.RawMessage{"tenant": json.RawMessage(`"acme"`)}}
}

func BenchmarkSign(b *testing.B) {
	c := newClient(b, answering(b, benchAnswer(b)))
	ctx, req := b.Context(), benchRequest()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Sign(ctx, req); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkSignNetHTTP is the same by net/http's client, for comparison.
func BenchmarkSignNetHTTP(b *testing.B) {
	path, req := answering(b, benchAnswer(b)), benchRequest()
	tr := &http.Transport{MaxIdleConnsPerHost: 100, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			doc, err := json.Marshal(req)
			if err != nil {
				b.Error(err)
			}
			resp, err := hc.Post("http://keyturn/v1/sign", "application/json", bytes.NewReader(doc))
			if err != nil {
				b.Error(err)
				return
			}
			var out api.SignResponse
			if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
				b.Error(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}

func BenchmarkSource(b *testing.B) {
	src := newClient(b, answering(b, benchAnswer(b))).Source(benchRequest())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := src.Token(b.Context()); err != nil {
				b.Error(err)
			}
		}
	})
}

func newClient(tb testing.TB, socket string) *client.Client {
	tb.Helper()
	c, err := client.New(client.Config{Socket: socket})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}
