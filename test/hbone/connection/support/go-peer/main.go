// A peer of tunnels with Go's own HTTP/2, which returns flow-control credit only for what has been read. In either role it
// needs nothing but the standard library.
//
//	go-peer client <address> <authority> <streams> <bytes>   sends random bytes on each stream and expects them back
//	go-peer downloads <address> <authority> <stalled>        leaves the first streams unread, asks until another one brings a megabyte
//	go-peer server <stalled>                                 echoes, but for the first streams, which it never reads
//
// Key and certificates are files whose names stand in KEY, CHAIN and ROOTS.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	log.SetFlags(0)
	certificate, err := tls.LoadX509KeyPair(os.Getenv("CHAIN"), os.Getenv("KEY"))
	check(err)
	pem, err := os.ReadFile(os.Getenv("ROOTS"))
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"h2"},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
		// It knows host names only.
		InsecureSkipVerify: true,
	}
	switch os.Args[1] {
	case "client":
		client(config, os.Args[2], os.Args[3], number(os.Args[4]), number(os.Args[5]))
	case "downloads":
		downloads(config, os.Args[2], os.Args[3], number(os.Args[4]))
	case "server":
		server(config, number(os.Args[2]))
	}
}

func client(config *tls.Config, address, authority string, streams, length int) {
	var dials atomic.Int64
	transport := transportTo(config, address, &dials)
	var all sync.WaitGroup
	for range streams {
		all.Go(func() {
			sent := make([]byte, length)
			rand.Read(sent)
			body, writer := io.Pipe()
			response := connect(transport, authority, body)
			go func() {
				_, err := writer.Write(sent)
				check(err)
				writer.Close()
			}()
			received, err := io.ReadAll(response.Body)
			check(err)
			if !bytes.Equal(sent, received) {
				log.Fatalf("%d bytes came back as %d others", length, len(received))
			}
		})
	}
	all.Wait()
	fmt.Println("whole")
}

func downloads(config *tls.Config, address, authority string, stalled int) {
	var dials atomic.Int64
	transport := transportTo(config, address, &dials)
	// A share of the window of the connection for each of them.
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 18, MaxReceiveBufferPerStream: 1 << 17}
	for range stalled {
		body, _ := io.Pipe()
		connect(transport, authority, body)
	}
	for came := int64(0); came < 1<<20; {
		body, _ := io.Pipe()
		response := connect(transport, authority, body)
		patience := time.AfterFunc(2*time.Second, func() { response.Body.Close() })
		came, _ = io.CopyN(io.Discard, response.Body, 1<<20)
		patience.Stop()
		response.Body.Close()
	}
	fmt.Printf("came over connection %d\n", dials.Load())
}

func transportTo(config *tls.Config, address string, dials *atomic.Int64) *http.Transport {
	return &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			dials.Add(1)
			return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
		},
	}
}

func connect(transport *http.Transport, authority string, body io.ReadCloser) *http.Response {
	response, err := transport.RoundTrip(&http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Scheme: "https", Host: authority},
		Host:   authority,
		Header: http.Header{},
		Body:   body,
	})
	check(err)
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		log.Fatalf("answered %s over %s", response.Status, response.Proto)
	}
	return response
}

func server(config *tls.Config, stalled int) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	check(err)
	var requests atomic.Int64
	handler := func(response http.ResponseWriter, request *http.Request) {
		number := int(requests.Add(1))
		fmt.Printf("%s %s from %s\n", request.Method, request.Host, request.RemoteAddr)
		flow := http.NewResponseController(response)
		check(flow.Flush())
		if number <= stalled {
			<-request.Context().Done()
			return
		}
		buffer := make([]byte, 32*1024)
		for {
			n, err := request.Body.Read(buffer)
			if n > 0 {
				if _, err := response.Write(buffer[:n]); err != nil || flow.Flush() != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	fmt.Printf("listens on %d\n", listener.Addr().(*net.TCPAddr).Port)
	check((&http.Server{Handler: http.HandlerFunc(handler)}).Serve(listener))
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
