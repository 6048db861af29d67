// Debian's Chromium with a profile of its own, on loopback only. What a page wants from elsewhere is answered by `answers`.
import { createRequire } from 'node:module';

const modules = process.env.PALISADE_NODE_MODULES;
export const require = createRequire(`${modules}/`);
const { chromium } = require('playwright-core');

/**
 * Opens a page, hands it to `use`, and closes everything whatever happens. The result is what `use` returned, all that was
 * complained about meanwhile, and `error`: null, or why `use` did not get to its end.
 * `options` are those of a context of Playwright's, such as `{ javaScriptEnabled: false }`.
 * `answers(url)` gives `{ body | path, contentType }` for a URL outside loopback, or nothing, and the request then fails.
 */
export async function withPage(answers, use, options = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.PALISADE_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      // Nothing but loopback can be reached even by a request that the interception doesn't see.
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1',
    ],
  });
  try {
    // The gateway's certificate is of a local authority that this browser does not know; TLS itself is tested elsewhere.
    const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
    const seen = { csp_violations: [], console_errors: [], page_errors: [], outside: [], unanswered: [] };
    await context.exposeFunction('reportViolation', (violation) => seen.csp_violations.push(violation));
    await context.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => {
        window.reportViolation({
          directive: event.effectiveDirective,
          blocked: event.blockedURI,
          disposition: event.disposition,
          sample: event.sample,
        });
      });
    });
    await context.route(
      (url) => url.protocol.startsWith('http') && !['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname) && !url.hostname.endsWith('.localhost'),
      async (route) => {
        const url = new URL(route.request().url());
        const answer = answers(url);
        seen.outside.push(url.href);
        if (answer) return route.fulfill({ status: 200, headers: { 'access-control-allow-origin': '*' }, ...answer });
        seen.unanswered.push(url.href);
        return route.abort('internetdisconnected');
      },
    );
    const page = await context.newPage();
    page.on('console', (message) => {
      if (message.type() === 'error') seen.console_errors.push(message.text());
    });
    page.on('pageerror', (error) => seen.page_errors.push(String(error)));
    try {
      return { ...(await use(page)), ...seen, error: null };
    } catch (error) {
      // With what was complained about until then: a policy that keeps a page from working says so there.
      return { ...seen, error: String(error) };
    }
  } finally {
    await browser.close();
  }
}

/** Prints the result as the last line, which is what the test reads. */
export function report(result) {
  console.log(JSON.stringify(result));
}
