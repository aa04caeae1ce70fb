package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
)

// Port is a reserved TCP port of 127.0.0.1.
type Port struct {
	number int
	held   net.Listener // the abstract socket
}

// lowest is the first port that is reserved: below stand those that services are known by.
const lowest = 10000

// rangeFile is where Linux says which ports it gives to whoever asks for none (ip(7)).
const rangeFile = "/proc/sys/net/ipv4/ip_local_port_range"

// Reserve finds a port that nobody listens on and that nobody else has reserved.
func Reserve() (*Port, error) {
	text, err := os.ReadFile(rangeFile)
	if err != nil {
		return nil, fmt.Errorf("ports that the kernel gives out: %w", err)
	}
	first, err := below(string(text))
	if err != nil {
		return nil, err
	}
	count := first - lowest
	for i, start := 0, rand.IntN(count); i < count; i++ {
		p, err := try(lowest + (start+i)%count)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no port from %d to %d is free", lowest, first-1)
}

// below reads the first port that the kernel gives out.
func below(text string) (int, error) {
	var first, last int
	if _, err := fmt.Sscan(text, &first, &last); err != nil {
		return 0, fmt.Errorf("%s: %w", rangeFile, err)
	}
	if first <= lowest {
		return 0, fmt.Errorf("%s begins at %d and leaves no ports above %d for tests: raise it", rangeFile, first, lowest)
	}
	return first, nil
}

func try(number int) (*Port, error) {
	held, err := net.Listen("unix", "@keyturn-test-port-"+strconv.Itoa(number))
	if err != nil {
		return nil, fmt.Errorf("reserve port %d: %w", number, err)
	}
	p := &Port{number, held}
	ln, err := net.Listen("tcp", p.Addr())
	if err == nil {
		err = ln.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port %d: %w", number, err), held.Close())
	}
	return p, nil
}

// Addr is 127.0.0.1 with the port.
func (p *Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// Release lets others have the port.
func (p *Port) Release() error {
	if err := p.held.Close(); err != nil {
		return fmt.Errorf("release port %d: %w", p.number, err)
	}
	return nil
}
