// Opens FastAPI's two documentation pages as a person does, and tries an operation out.
//
//   node docs_page.mjs BASE-URL [METHOD PATH [MILLISECONDS]]        default: get /notes 30000
//
// There is no internet in tests: what the pages load from a CDN is answered from npm's packages. The browser applies the
// page's CSP before it asks, so a policy that forbids the CDN is seen here as it would be out there.
import { readFileSync } from 'node:fs';
import { report, require, withPage } from './browser.mjs';

const [base, method = 'get', path = '/notes', timeout = '30000'] = process.argv.slice(2);
// For the page to load, which also a broken one does; and for what a working one then shows.
const LOAD = 60_000;
const TIMEOUT = Number(timeout);

function file(name, contentType) {
  return { body: readFileSync(require.resolve(name)), contentType };
}

function answers(url) {
  const script = 'text/javascript; charset=utf-8';
  if (url.hostname === 'cdn.jsdelivr.net') {
    const [, name] = /^\/npm\/swagger-ui-dist@[^/]+\/([\w.-]+)$/.exec(url.pathname) ?? [];
    if (name) return file(`swagger-ui-dist/${name}`, name.endsWith('.css') ? 'text/css' : script);
    if (/^\/npm\/redoc@[^/]+\/bundles\/redoc\.standalone\.js$/.test(url.pathname)) {
      return file('redoc/bundles/redoc.standalone.js', script);
    }
  }
  if (url.hostname === 'fastapi.tiangolo.com') return file('swagger-ui-dist/favicon-32x32.png', 'image/png');
  if (url.hostname === 'fonts.googleapis.com') return { body: '', contentType: 'text/css' };
  // Redoc shows its maker's mark.
  if (url.hostname === 'cdn.redoc.ly') return { body: '<svg xmlns="http://www.w3.org/2000/svg"/>', contentType: 'image/svg+xml' };
  return undefined;
}

async function swagger(page) {
  const answer = await page.goto(`${base}/docs`, { waitUntil: 'load', timeout: LOAD });
  const operation = page
    .locator(`.opblock-${method.toLowerCase()}`)
    .filter({ has: page.locator(`.opblock-summary-path[data-path="${path}"]`) });
  await operation.waitFor({ timeout: TIMEOUT });
  await operation.locator('.opblock-summary-control').first().click();
  await operation.getByRole('button', { name: 'Try it out' }).click();
  await operation.getByRole('button', { name: 'Execute' }).click();
  const live = operation.locator('.live-responses-table .response');
  await live.waitFor({ timeout: TIMEOUT });
  return {
    status: answer.status(),
    title: await page.title(),
    csp: answer.headers()['content-security-policy'] ?? null,
    operations: await page.locator('.opblock').count(),
    status_seen: (await live.locator('.response-col_status').innerText()).trim().split(/\s/)[0],
    body_seen: (await live.locator('.response-col_description pre').first().innerText()).trim(),
    request_url: (await operation.locator('.request-url pre').innerText()).trim(),
  };
}

async function redoc(page) {
  const answer = await page.goto(`${base}/redoc`, { waitUntil: 'load', timeout: LOAD });
  const heading = page.locator('.api-content h1').first();
  await heading.waitFor({ timeout: TIMEOUT });
  return {
    status: answer.status(),
    title: await page.title(),
    csp: answer.headers()['content-security-policy'] ?? null,
    heading: (await heading.innerText()).trim(),
    operations: await page.locator('.api-content [data-section-id^="operation/"], .api-content [id^="operation/"]').count(),
  };
}

report({ docs: await withPage(answers, swagger), redoc: await withPage(answers, redoc) });
