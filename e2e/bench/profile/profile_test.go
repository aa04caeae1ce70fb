package profile

import (
	"debug/elf"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const mod = "github.com/keyturn/keyturn/"

func TestOwnerOf(t *testing.T) {
	for want, s := range map[string]Stack{
		"signature": {"runtime.mallocgc", "crypto/ecdsa.(*PrivateKey).Sign", mod + "token.(*Signer).Sign", "net/http.(*conn).serve"},
		"memory":    {"runtime.memclr", "runtime.mallocgc", "encoding/json.Marshal", mod + "signer.writeJSON", "net/http.(*conn).serve"},
		"keyturn":   {"encoding/base64.(*Encoding).Encode", mod + "token.(*Signer).Sign", "net/http.(*conn).serve"},
		"http":      {"runtime.mapassign", "net/textproto.(*Reader).ReadMIMEHeader", "net/http.(*conn).serve"},
		"socket":    {Kernel + "unix_stream_sendmsg", "syscall.write", "internal/poll.(*FD).Write", "net/http.(*conn).serve"},
		"audit":     {Kernel + "ext4_write", "internal/poll.(*FD).Write", mod + "audit.(*Log).Append", mod + "signer.(*Signer).answer"},
		"scheduler": {Kernel + "futex_wait", "runtime.futex", "runtime.mcall"},
		"rest":      {"main.main"},
	} {
		if got := OwnerOf(s); got != want {
			t.Errorf("%v is put down to %s, want %s", s, got, want)
		}
	}
	if got := OwnerOf(Stack{Kernel + "finish_task_switch", Kernel + "ret_from_fork"}); got != "scheduler" {
		t.Errorf("a thread that wakes is put down to %s", got)
	}
}

// perf's lines name addresses as they are, or counted from the start of the file.
func TestStacks(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "program")
	for name, doc := range map[string]string{"go.mod": "module program\n", "main.go": "package main\n\nfunc main() { println(1) }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	table, err := readSymbols(binary)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(table.list, func(s elf.Symbol) bool { return s.Name == "main.main" })
	if at < 0 {
		t.Fatal("main.main is not among the symbols")
	}
	inside := table.list[at].Value + 1
	text := fmt.Sprintf("\tffffffff81000000 schedule\n\t%x [unknown]\n\n\t%x [unknown]\n\n\t10 [unknown]\n", inside, inside-table.base)
	want := []Stack{{Kernel + "schedule", "main.main"}, {"main.main"}, {"[outside]"}}
	if got := table.stacks(text); !reflect.DeepEqual(got, want) {
		t.Errorf("stacks %v, want %v", got, want)
	}
}

func TestDraw(t *testing.T) {
	var out strings.Builder
	err := Draw(&out, "Title & more", []Bar{
		{Title: "one", Micros: map[string]float64{"signature": 25, "http": 10}, Load: 8},
		{Title: "other", Micros: map[string]float64{"signature": 25}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"43.0 µs", "25.0 µs", "Title &amp; more", "net/http: 10.0 µs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(out.String())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("no XML: %v", err)
		}
	}
}
