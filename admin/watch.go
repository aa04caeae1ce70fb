package admin

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
)

// watchInterval is how often Run looks whether this process is ready.
const watchInterval = time.Second

// Run tells the log when this process stops being ready, to serve its public
// set, to sign, or to turn at all, and when it is again, until ctx ends. What causes it is logged
// by the part that finds it; a lease that just ends, or a set that grows too
// old, is found by nobody but who looks at the clock.
func (a *Admin) Run(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	public, signer, alive := false, false, true // as every process starts
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			h := a.judge(now)
			a.watch(ctx, "alive", a.alive(), &alive)
			a.watch(ctx, "public", h.public, &public)
			if a.cfg.SignerAlarms != nil {
				a.watch(ctx, "signer", h.signer, &signer)
			}
		}
	}
}

// watch tells a change of one probe since it was last looked at.
func (a *Admin) watch(ctx context.Context, probe string, h api.Health, was *bool) {
	ready := h.Status != statusUnavailable
	if ready == *was {
		return
	}
	*was = ready
	if ready {
		a.cfg.Logger.Info("ready", "probe", probe)
		return
	}
	codes := []string{}
	for _, r := range h.Reasons {
		if !slices.Contains(codes, r.Code) {
			codes = append(codes, r.Code)
		}
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "not ready", slog.String("probe", probe), slog.Any("codes", codes))
}
