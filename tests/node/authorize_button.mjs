// Opens FastAPI's own page, tries an operation without a login, presses "Authorize", and tries it again.
//
//   node authorize_button.mjs BASE-URL NAME PASSWORD
import { readFileSync } from 'node:fs';
import { report, require, withPage } from './browser.mjs';

const [base, name, password] = process.argv.slice(2);
const TIMEOUT = 30_000;

function answers(url) {
  const [, file] = /^\/npm\/swagger-ui-dist@[^/]+\/([\w.-]+)$/.exec(url.pathname) ?? [];
  if (url.hostname === 'cdn.jsdelivr.net' && file) {
    const contentType = file.endsWith('.css') ? 'text/css' : 'text/javascript; charset=utf-8';
    return { body: readFileSync(require.resolve(`swagger-ui-dist/${file}`)), contentType };
  }
  if (url.hostname === 'fastapi.tiangolo.com') {
    return { body: readFileSync(require.resolve('swagger-ui-dist/favicon-32x32.png')), contentType: 'image/png' };
  }
  return undefined;
}

report(
  await withPage(answers, async (page) => {
    await page.goto(`${base}/docs`, { waitUntil: 'load', timeout: 60_000 });
    const operation = page.locator('.opblock-get').filter({ has: page.locator('.opblock-summary-path[data-path="/me"]') });
    await operation.waitFor({ timeout: TIMEOUT });
    await operation.locator('.opblock-summary-control').first().click();
    await operation.getByRole('button', { name: 'Try it out' }).click();
    const live = operation.locator('.live-responses-table .response');
    const execute = async () => {
      const answered = page.waitForResponse((answer) => new URL(answer.url()).pathname === '/me', { timeout: TIMEOUT });
      await operation.getByRole('button', { name: 'Execute' }).click();
      return await answered;
    };
    const before = (await execute()).status();
    await page.locator('.scheme-container .authorize').first().click();
    const dialog = page.locator('.auth-container').first();
    await dialog.locator('input[name="username"], #oauth_username').first().fill(name);
    await dialog.locator('input[type="password"], #oauth_password').first().fill(password);
    const token = page.waitForResponse((answer) => new URL(answer.url()).pathname === '/auth/token', { timeout: TIMEOUT });
    await dialog.locator('button.authorize').click();
    const token_status = (await token).status();
    await page.locator('.auth-container button.btn-done, .btn-done').first().click();
    const after = await execute();
    await live.waitFor({ timeout: TIMEOUT });
    return { before, token_status, after: after.status(), name: (await after.json()).name };
  }),
);
