package gate

import (
	"testing"
	"time"
)

func BenchmarkTurns(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		turns, ctx := NewTurns(TurnsConfig{}), b.Context()
		b.ReportAllocs()
		for b.Loop() {
			turn, err := turns.Enter(ctx, flood)
			if err != nil {
				b.Fatal(err)
			}
			turn.Leave()
		}
	})
	b.Run("two users", func(b *testing.B) {
		turns, ctx := NewTurns(TurnsConfig{}), b.Context()
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			turn, err := turns.Enter(ctx, i&1)
			if err != nil {
				b.Fatal(err)
			}
			turn.Leave()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		turns, ctx := NewTurns(TurnsConfig{}), b.Context()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				turn, err := turns.Enter(ctx, flood)
				if err != nil {
					b.Error(err)
					return
				}
				turn.Leave()
			}
		})
	})
	b.Run("crowded", func(b *testing.B) { // each has to wait
		turns, ctx := NewTurns(TurnsConfig{Slots: 1}), b.Context()
		b.SetParallelism(8)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				turn, err := turns.Enter(ctx, flood)
				if err != nil {
					b.Error(err)
					return
				}
				turn.Leave()
			}
		})
	})
}

func BenchmarkLimiter(b *testing.B) {
	l, r := NewLimiter(), Rate{PerSecond: 1e12, Burst: 1 << 30}
	for uid := range uint32(1000) {
		l.Allow("orders", uid, r, noon)
	}
	b.ReportAllocs()
	now := time.Now()
	for b.Loop() {
		if ok, _ := l.Allow("orders", flood, r, now); !ok {
			b.Fatal("refused")
		}
	}
}
