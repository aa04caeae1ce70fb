package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/load"
	"github.com/keyturn/keyturn/e2e/bench/raw"
)

// measure puts a load on the daemon.
func (s *site) measure(ctx context.Context, args ...string) (load.Result, error) {
	return measureLoad(ctx, append([]string{"-socket", s.socket, "-pid", fmt.Sprint(s.cmd.Process.Pid)}, args...)...)
}

func measureLoad(ctx context.Context, args ...string) (load.Result, error) {
	return again[load.Result](ctx, append([]string{"load", "-json"}, args...)...)
}

func measureRaw(ctx context.Context, alg string, length time.Duration, more ...string) (raw.Result, error) {
	return again[raw.Result](ctx, append([]string{"raw", "-json", "-alg", alg, "-d", length.String()}, more...)...)
}

// again runs this binary as a process of its own and reads what it measured.
func again[T any](ctx context.Context, args ...string) (T, error) {
	var res T
	self, err := os.Executable()
	if err != nil {
		return res, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return res, fmt.Errorf("bench %s: %w", strings.Join(args, " "), err)
	}
	return res, json.Unmarshal(out, &res)
}
