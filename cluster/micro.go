package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// ErrNoService: nobody answers on a subject.
var ErrNoService = errors.New("no service answers")

// Codes of an [RPCError], as in HTTP.
const (
	CodeBadRequest  = "400"
	CodeNotFound    = "404"
	CodeTooLarge    = "413"
	CodeInternal    = "500"
	CodeUnavailable = "503"
	CodeTimeout     = "504"
)

// RPCError is what a service answers when it cannot do what it was asked. A
// handler returns one to choose the code; any other error is CodeInternal.
type RPCError struct {
	Code    string `json:"code"`
	Message string `json:"error"`
}

// Error implements error.
func (e *RPCError) Error() string { return fmt.Sprintf("%s (code %s)", e.Message, e.Code) }

// Is makes errors.Is compare the codes.
func (e *RPCError) Is(target error) bool {
	o, ok := target.(*RPCError)
	return ok && o.Code == e.Code
}

const (
	// timeoutHeader tells the service how long the caller waits, in milliseconds.
	timeoutHeader = "Cairn-Timeout-Ms"

	// DefaultCallTimeout bounds a call whose context has no deadline, and the
	// handling of a request that does not say how long its caller waits.
	DefaultCallTimeout = 10 * time.Second
	// DefaultMaxInFlight is how many requests a service handles at a time; more
	// are refused with CodeUnavailable.
	DefaultMaxInFlight = 64

	noVersion = "0.0.0"
)

// ServiceConfig describes a micro service, as `nats micro info` shows it.
type ServiceConfig struct {
	// Name is [ServiceNode] or [ServiceRouter].
	Name        string
	Description string
	// Version of the program; shown as 0.0.0 where it is not a semantic version.
	Version  string
	Metadata map[string]string
	// MaxInFlight bounds the requests in work over all endpoints. Default 64.
	MaxInFlight int
}

// Service answers requests. Its methods may run in parallel.
type Service struct {
	conn   *Conn
	svc    micro.Service
	ctx    context.Context // of the handlers; ends with Stop
	cancel context.CancelFunc
	slots  chan struct{} // one for each request in work
	stats  sync.Map      // name of endpoint → *endpointStats

	// mu guards stopped, so that no request begins after Stop has begun to wait.
	mu      sync.Mutex
	stopped bool
	wg      sync.WaitGroup
}

// endpointStats is what `nats micro stats` shows as data of an endpoint. The
// library's own counts end when a request is handed to its goroutine.
type endpointStats struct {
	answered, failed, busyNS atomic.Int64
}

// MarshalJSON implements json.Marshaler.
func (e *endpointStats) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]int64{
		"answered": e.answered.Load(), "failed": e.failed.Load(), "busy_ms": e.busyNS.Load() / int64(time.Millisecond),
	})
}

var semver = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// NewService registers a service; [Serve] gives it endpoints.
func NewService(conn *Conn, cfg ServiceConfig) (*Service, error) {
	version := strings.TrimPrefix(cfg.Version, "v")
	if !semver.MatchString(version) {
		version = noVersion
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{conn: conn, ctx: ctx, cancel: cancel, slots: make(chan struct{}, or(cfg.MaxInFlight, DefaultMaxInFlight))}
	var err error
	s.svc, err = micro.AddService(conn.NC, micro.Config{
		Name: cfg.Name, Version: version, Description: cfg.Description, Metadata: cfg.Metadata,
		StatsHandler: func(e *micro.Endpoint) any { return s.endpoint(e.Name) },
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cluster: service %s: %w", cfg.Name, err)
	}
	return s, nil
}

func (s *Service) endpoint(name string) *endpointStats {
	e, _ := s.stats.LoadOrStore(name, &endpointStats{})
	return e.(*endpointStats)
}

// Stop takes the service off NATS, cancels what is in work and waits for it. It
// may be called again.
func (s *Service) Stop() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	err := s.svc.Stop()
	s.cancel()
	s.wg.Wait()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		return fmt.Errorf("cluster: stop service: %w", err)
	}
	return nil
}

// Endpoint is one operation of a service.
type Endpoint struct {
	Name    string // letters, digits, '-' and '_'
	Subject string // [RPCSubject] or [SubjectRoute]
	// Queue shares the requests among all services of this group; empty: every
	// service that listens gets each request.
	Queue string
	// Schema names the formats of request and answer, for people.
	Schema string
}

// Serve answers requests in JSON on an endpoint. handle runs on a goroutine of
// its own, with a context that ends when the caller stops waiting; it may run in
// parallel with itself.
func Serve[Req, Resp any](s *Service, ep Endpoint, handle func(context.Context, Req) (Resp, error)) error {
	opts := []micro.EndpointOpt{micro.WithEndpointSubject(ep.Subject), micro.WithEndpointQueueGroupDisabled()}
	if ep.Queue != "" {
		opts[1] = micro.WithEndpointQueueGroup(ep.Queue)
	}
	if ep.Schema != "" {
		opts = append(opts, micro.WithEndpointMetadata(map[string]string{"cairn-schema": ep.Schema, "format": "application/json"}))
	}
	err := s.svc.AddEndpoint(ep.Name, micro.HandlerFunc(func(r micro.Request) {
		s.dispatch(s.endpoint(ep.Name), r, func(ctx context.Context) (any, error) {
			var req Req
			if len(r.Data()) > 0 {
				if err := json.Unmarshal(r.Data(), &req); err != nil {
					return nil, &RPCError{CodeBadRequest, "the request is not the JSON that " + ep.Subject + " takes: " + err.Error()}
				}
			}
			return handle(ctx, req)
		})
	}), opts...)
	if err != nil {
		return fmt.Errorf("cluster: endpoint %s on %s: %w", ep.Name, ep.Subject, err)
	}
	return nil
}

// dispatch runs work on a goroutine of its own, or refuses it. The answer goes
// past the library's request, which must not be touched after its handler
// returns.
func (s *Service) dispatch(stats *endpointStats, r micro.Request, work func(context.Context) (any, error)) {
	if err := s.admit(); err != nil {
		s.answer(stats, r.Reply(), nil, err)
		return
	}
	begin := time.Now()
	go func() {
		defer s.wg.Done()
		defer func() { <-s.slots }()
		ctx, cancel := context.WithTimeout(s.ctx, timeoutOf(r.Headers().Get(timeoutHeader)))
		defer cancel()
		result, err := work(ctx)
		s.answer(stats, r.Reply(), result, err)
		stats.busyNS.Add(int64(time.Since(begin)))
	}()
}

// admit takes a slot and counts the request as in work.
func (s *Service) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return &RPCError{CodeUnavailable, "the service is stopping"}
	}
	select {
	case s.slots <- struct{}{}:
		s.wg.Add(1)
		return nil
	default:
		return &RPCError{CodeUnavailable, fmt.Sprintf("busy: %d requests are in work; try again", cap(s.slots))}
	}
}

// answer sends the result, or the error where there is one.
func (s *Service) answer(stats *endpointStats, reply string, result any, err error) {
	if reply == "" { // told rather than asked
		stats.answered.Add(1)
		if err != nil {
			stats.failed.Add(1)
			s.conn.Log.Debug("what nobody waits for failed", "error", err)
		}
		return
	}
	msg := nats.NewMsg(reply)
	if err == nil {
		msg.Data, err = json.Marshal(result)
	}
	if limit := s.conn.NC.MaxPayload(); err == nil && int64(len(msg.Data)) > limit {
		err = &RPCError{CodeTooLarge, fmt.Sprintf("the answer of %d bytes is larger than NATS carries (%d); ask for less", len(msg.Data), limit)}
	}
	stats.answered.Add(1)
	if err != nil {
		stats.failed.Add(1)
		e := rpcError(err)
		msg.Header.Set(micro.ErrorCodeHeader, e.Code)
		msg.Header.Set(micro.ErrorHeader, e.Message)
		if msg.Data, err = json.Marshal(e); err != nil {
			msg.Data = nil // the headers say it too
		}
	}
	if err := s.conn.NC.PublishMsg(msg); err != nil {
		s.conn.Log.Warn("answer not sent", "error", err)
	}
}

func timeoutOf(header string) time.Duration {
	ms, err := strconv.ParseInt(header, 10, 32)
	if err != nil || ms <= 0 {
		return DefaultCallTimeout
	}
	return time.Duration(ms) * time.Millisecond
}

// rpcError gives an error its code.
func rpcError(err error) *RPCError {
	var e *RPCError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &RPCError{CodeTimeout, err.Error()}
	case errors.Is(err, context.Canceled):
		return &RPCError{CodeUnavailable, err.Error()}
	}
	return &RPCError{CodeInternal, err.Error()}
}

// Call asks the service on a subject and waits for its answer until ctx ends, or
// 10 s where ctx has no deadline. An answer that is an error comes back as an
// [*RPCError]; where nobody listens the error matches [ErrNoService].
func Call[Req, Resp any](ctx context.Context, conn *Conn, subject string, req Req) (Resp, error) {
	var resp Resp
	body, err := json.Marshal(req)
	if err != nil {
		return resp, fmt.Errorf("cluster: call %s: %w", subject, err)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		var cancel context.CancelFunc
		deadline = time.Now().Add(DefaultCallTimeout)
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	msg := nats.NewMsg(subject)
	msg.Data = body
	msg.Header.Set(timeoutHeader, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	answer, err := conn.NC.RequestMsgWithContext(ctx, msg)
	if errors.Is(err, nats.ErrNoResponders) {
		return resp, fmt.Errorf("cluster: call %s: %w: is it running, and on this NATS? nats micro ls shows who is", subject, ErrNoService)
	}
	if err != nil {
		return resp, fmt.Errorf("cluster: call %s: %w", subject, err)
	}
	if code := answer.Header.Get(micro.ErrorCodeHeader); code != "" {
		e := &RPCError{}
		if json.Unmarshal(answer.Data, e) != nil || e.Code == "" { // not one of ours
			e = &RPCError{code, answer.Header.Get(micro.ErrorHeader)}
		}
		return resp, fmt.Errorf("cluster: call %s: %w", subject, e)
	}
	if err := json.Unmarshal(answer.Data, &resp); err != nil {
		return resp, fmt.Errorf("cluster: call %s: answer: %w", subject, err)
	}
	return resp, nil
}
