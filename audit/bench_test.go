package audit

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// signed is a record as an allow has it in life.
func signed(jti string) Record {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	return Record{
		Time: at, Event: EventSign, Decision: Allow, Socket: "default", UID: 1000, GID: 1000, PID: 4242,
		Profile: "orders", Issuer: "main", Ring: "web", Kid: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", JTI: jti,
		Subject: "user-4711", Audiences: []string{"api://orders"}, ExpiresAt: at.Truncate(time.Second).Add(5 * time.Minute),
		ClaimsSHA256: "5bb050e0683c8bb82921399b51e62add289e8e33666a5bbdc74140232c1e5a04",
	}
}

func benchLog(b *testing.B) *Log {
	b.Helper()
	l, err := Open(filepath.Join(b.TempDir(), "audit.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	b.ReportAllocs()
	return l
}

func BenchmarkAppend(b *testing.B) {
	l, r := benchLog(b), signed("b3_9sXh8uDCcd-6MNwXF4W")
	for b.Loop() {
		if err := l.Append(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendParallel(b *testing.B) {
	l := benchLog(b)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		r := signed("b3_9sXh8uDCcd-6MNwXF4W")
		for pb.Next() {
			if err := l.Append(b.Context(), r); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkAppendAll is per record.
func BenchmarkAppendAll(b *testing.B) {
	l := benchLog(b)
	batch := make([]Record, 64)
	for i := range batch {
		batch[i] = signed(fmt.Sprint(i))
	}
	for i := 0; i < b.N; i += len(batch) {
		if err := l.AppendAll(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	b.ReportAllocs()
	r, buf := signed("b3_9sXh8uDCcd-6MNwXF4W"), make([]byte, 0, 1024)
	for b.Loop() {
		if _, err := r.appendTo(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
