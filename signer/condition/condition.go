package condition

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Bounds of an expression and of one evaluation.
const (
	// MaxText is the longest expression, in characters.
	MaxText = 4096
	// maxNodes and maxDepth bound what the text unfolds to.
	maxNodes = 2000
	maxDepth = 50
	// maxCost of one evaluation, in CEL's units: one for about each operation,
	// of which a processor does some ten million a second.
	maxCost = 100_000
	// maxEstimate is the worst case that is let in. It is far above maxCost,
	// since the estimator takes all lists and all texts for the longest at once,
	// which no request has room for; a loop within a loop is above it.
	maxEstimate = 10_000_000
	// cheapCost is up to where nobody has to watch the time.
	cheapCost = 5_000
	// maxTime of an expression that could cost more. It is far beyond what
	// maxCost takes on a machine that does anything at all.
	maxTime = 2 * time.Second
	// maxRegexp is the size of a compiled pattern, in instructions.
	maxRegexp = 1_000
)

// Condition is a compiled expression. It is safe for many goroutines.
type Condition struct {
	text    string
	names   Names
	program cel.Program
	timed   bool
}

// Names are those that an expression spells out and looks for in what a caller
// sends. A name that is only put together when it is asked is not among them.
type Names struct {
	// Claims are names of claims: claims.x, claims["x"], "x" in claims, a key of
	// claims in a loop that is compared with "x".
	Claims []string
	// Inner are names within a claim, and those of which the text does not tell
	// whether they are: all other fields and keys, and what membership is asked
	// of, since a list is not told from an object.
	Inner []string
}

// Names are the names that the expression looks for, each once.
func (c *Condition) Names() Names { return c.names }

// Input is what an expression sees.
type Input struct {
	// Claims are those that the token will carry beside keyturn's own: strict JSON.
	Claims iter.Seq2[string, []byte]
	Peer   Peer
	// Request is as it was judged: the subject may be the profile's.
	Request Request
}

// Peer is who asks. There is no pid: it may be another process by now.
type Peer struct {
	UID uint32
	// GID is -1 where it is not known here. Groups are all that are known, the
	// primary one included.
	GID    int64
	Groups []uint32
	// Socket is the name of the sign socket that the caller came through.
	Socket string
}

// Request is what is asked for.
type Request struct {
	Profile    string
	Subject    string
	Audience   []string
	TTLSeconds int64
}

// Known says of names that an expression spells out why they can never be
// there, nil where they can. A nil function takes every name.
type Known struct {
	// Claim is asked about each of Names.Claims.
	Claim func(name string) error
	// Socket is asked about texts that peer.socket is compared with: by ==, by !=,
	// and in a list.
	Socket func(name string) error
}

// Compile reads an expression. All faults are joined, each with its place in
// the text.
func Compile(text string, known Known) (c *Condition, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("the expression cannot be read: the library gave up (%v)", r)
		}
	}()
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("it is empty; take it out, or write an expression such as claims.tenant == 'acme'")
	}
	env, err := newEnv()
	if err != nil {
		return nil, fmt.Errorf("set up expressions: %w", err)
	}
	ast, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, syntaxFaults(issues.Errors(), text)
	}
	checked, issues := env.Check(ast)
	if issues.Err() != nil {
		return nil, typeFaults(issues.Errors(), ast, text)
	}
	names, err := houseRules(checked, text, known)
	if err != nil {
		return nil, err
	}
	if c, err = plan(env, checked, text); err != nil {
		return nil, err
	}
	c.names = names
	return c, nil
}

// plan refuses what could cost too much with the largest request.
func plan(env *cel.Env, checked *cel.Ast, text string) (*Condition, error) {
	estimate, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, fmt.Errorf("its cost cannot be told: %w", err)
	}
	if estimate.Max > maxEstimate {
		return nil, fmt.Errorf("it could cost %s with the largest request, and %d are the most; take a loop within a loop out of it", costText(estimate.Max), maxEstimate)
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("it cannot be made ready: %w", err)
	}
	return &Condition{text: text, program: program, timed: estimate.Max > cheapCost}, nil
}

func costText(units uint64) string {
	const most = 1_000_000_000_000
	if units > most {
		return "without a bound"
	}
	return fmt.Sprintf("%d units", units)
}

// Eval reports whether the request is allowed. With an error it is not. The
// error holds no value of a claim: it goes into records that keep a digest only.
func (c *Condition) Eval(in Input) (allowed bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			allowed, err = false, fmt.Errorf("the library gave up with a %T", r)
		}
	}()
	claims, err := readClaims(in.Claims)
	if err != nil {
		return false, err
	}
	if len(in.Peer.Groups) > maxItems {
		return false, fmt.Errorf("the caller is in %d groups, and a condition looks at %d at most", len(in.Peer.Groups), maxItems)
	}
	out, err := c.run(&variables{in: in, claims: claims})
	if err != nil {
		return false, c.plain(err)
	}
	yes, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("it gave a %s, not true or false", out.Type().TypeName())
	}
	return bool(yes), nil
}

func (c *Condition) run(v *variables) (ref.Val, error) {
	if !c.timed {
		out, _, err := c.program.Eval(v)
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	out, _, err := c.program.ContextEval(ctx, v)
	return out, err
}
