package profile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// hertz is how often each processor is looked at: no divisor of the clocks
// that something else may run by.
const hertz = 2999

// Stack is what was running at one look, the innermost function first.
type Stack []string

// Record watches a process for a while. The binary is the file that it runs.
func Record(ctx context.Context, pid int, binary string, length time.Duration) ([]Stack, error) {
	table, err := readSymbols(binary)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keyturn-profile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "perf.data")
	record := exec.CommandContext(ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", strconv.Itoa(hertz), "-g", "-p", strconv.Itoa(pid), "-o", data,
		"--", "sleep", fmt.Sprint(length.Seconds()))
	if out, err := record.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("perf record (Debian's linux-perf): %w: %s", err, out)
	}
	out, err := exec.CommandContext(ctx, "perf", "script", "-i", data, "-F", "ip,sym").Output()
	if err != nil {
		return nil, fmt.Errorf("perf script: %w", err)
	}
	return table.stacks(string(out)), nil
}

// stacks reads what perf script prints: a block of lines a look, each with an
// address and, of the kernel, a name.
func (t symbols) stacks(text string) []Stack {
	var all []Stack
	for block := range strings.SplitSeq(text, "\n\n") {
		var s Stack
		for line := range strings.Lines(block) {
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			addr, err := strconv.ParseUint(fields[0], 16, 64)
			switch {
			case err != nil:
				continue
			case addr >= firstOfKernel:
				s = append(s, Kernel+strings.Join(fields[1:], " "))
			default:
				s = append(s, t.name(addr))
			}
		}
		if len(s) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// Kernel stands before the names of the kernel's functions.
const Kernel = "kernel:"

const firstOfKernel = 1 << 63
