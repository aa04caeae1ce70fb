package profile

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// owners are those whom processor time is put down to, in the order of a
// request's way from the signature outwards.
var owners = []Owner{
	{"signature", "the signature, as in raw", "#2f6fb2", "white"},
	{"keyturn", "keyturn: request, profile, claims, token, answer", "#7fb3e6", "black"},
	{"memory", "allocating and collecting memory", "#f2b134", "black"},
	{"audit", "audit log: encoding, chain, file", "#8e6bb8", "white"},
	{"http", "net/http", "#6bbf8a", "black"},
	{"socket", "the kernel: reading and writing the socket", "#d9534f", "white"},
	{"scheduler", "Go's scheduler and poller, waking and sleeping", "#e8a09d", "black"},
	{"rest", "the rest", "#b8b8b8", "black"},
}

// Owner is a share of the work; Ink can be read on its colour.
type Owner struct{ Key, Title, Colour, Ink string }

// Owners lists them all.
func Owners() []Owner { return slices.Clone(owners) }

// whole decides by any function of a stack, the first rule that fits.
var whole = []struct {
	owner string
	marks []string
}{
	{"audit", []string{"keyturn/audit."}},
	{"signature", []string{"custody/internal/half.(*Key).Sign", "crypto/ecdsa.", "crypto/ed25519.", "crypto/rsa.",
		"keyturn/token.digest",                                    // raw hashes its input too
		"p256MulInternal", "p256SqrInternal", "p256SubInternal"}}, // assembly without a frame: nobody sees who called it
	{"memory", []string{"runtime.mallocgc", "runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcAssistAlloc", "runtime.gcStart",
		"runtime.newstack"}},
	{"socket", []string{"internal/poll.(*FD).", "syscall.read", "syscall.write"}},
	{"scheduler", []string{"runtime.mcall", "runtime.schedule", "runtime.findRunnable", "runtime.netpoll", "runtime.futex", "runtime.sysmon",
		"runtime.mstart", "runtime.notewakeup", "runtime.ready", "runtime.wakep"}},
}

// nearest decides by the innermost function that is of one of these packages;
// what the standard library does for one of them is that one's.
var nearest = []struct {
	owner string
	marks []string
}{
	{"http", []string{"net/http.", "net/textproto.", "keyturn/cmd/"}},
	{"keyturn", []string{"keyturn/signer", "keyturn/token.", "keyturn/api.", "keyturn/internal/", "keyturn/rotator.", "keyturn/keyring.", "go-json-experiment/"}},
}

// OwnerOf says whose a stack is.
func OwnerOf(s Stack) string {
	for _, rule := range whole {
		for _, f := range s {
			if contains(f, rule.marks) {
				return rule.owner
			}
		}
	}
	for _, f := range s {
		for _, rule := range nearest {
			if contains(f, rule.marks) {
				return rule.owner
			}
		}
	}
	if len(s) > 0 && strings.HasPrefix(s[len(s)-1], Kernel) { // a thread that wakes or goes to sleep
		return "scheduler"
	}
	return "rest"
}

func contains(f string, marks []string) bool {
	return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(f, m) })
}

// Shares are the owners' shares of all looks, together 1.
func Shares(all []Stack) map[string]float64 {
	shares := map[string]float64{}
	for _, s := range all {
		shares[OwnerOf(s)] += 1 / float64(len(all))
	}
	return shares
}

// Functions prints those that most looks found at work, callees included.
func Functions(w io.Writer, all []Stack, most int) error {
	counts := map[string]int{}
	for _, s := range all {
		for _, f := range slices.Compact(slices.Sorted(slices.Values(s))) {
			counts[f]++
		}
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, f := range names[:min(most, len(names))] {
		if _, err := fmt.Fprintf(w, "%5.1f %% %s\n", 100*float64(counts[f])/float64(len(all)), f); err != nil {
			return err
		}
	}
	return nil
}
