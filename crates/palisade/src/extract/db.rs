//! The database: the application's own tables beside Palisade's, and its accounts.

use std::ops::Deref;

use axum::extract::{FromRef, FromRequestParts};
use http::StatusCode;
use http::request::Parts;
use palisade_identity::Identity;
use palisade_store::sea_orm::{ColumnTrait as _, EntityTrait, QueryFilter as _, Select};
use palisade_store::{Error, Tables};

use super::{User, context};
use crate::State;
use crate::refusal::{Code, Refusal};

/// A handler asks for the database, and the policy has none.
pub(super) static NO_DATABASE: Code = Code::operator(
    "database.none",
    StatusCode::INTERNAL_SERVER_ERROR,
    15,
    "this part of the application has no database",
);
/// The database does not answer.
pub(super) static AWAY: Code = Code::operator(
    "database.away",
    StatusCode::SERVICE_UNAVAILABLE,
    15,
    "the database does not answer just now; try again later",
);
/// Something that has to be unique exists already, or something that is referred to does not.
pub(super) static CONFLICT: Code =
    Code::client("database.conflict", StatusCode::CONFLICT, 15, "it exists already, or what it belongs to does not");
/// The database cannot do what it was asked.
pub(super) static FAILED: Code =
    Code::operator("database.failed", StatusCode::INTERNAL_SERVER_ERROR, 15, "the database could not do this");

/// The database of `[database]`, for the application's own tables: [`Tables`] by itself, with its pool, its deadline and
/// its statements that have every value bound. Needs `[auth]`, which opens it.
///
/// ```
/// use palisade::extract::{Db, User};
/// use palisade::prelude::*;
/// # mod note {
/// #     use palisade::sea_orm;
/// #     use palisade::sea_orm::entity::prelude::*;
/// #     #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
/// #     #[sea_orm(table_name = "note")]
/// #     pub struct Model { #[sea_orm(primary_key)] pub id: i64, pub owner: String, pub text: String }
/// #     #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
/// #     pub enum Relation {}
/// #     impl ActiveModelBehavior for ActiveModel {}
/// # }
/// impl palisade::extract::Owned for note::Entity {
///     const OWNER: note::Column = note::Column::Owner;
/// }
///
/// async fn mine(user: User, db: Db) -> Result<String, Refusal> {
///     let notes = db.all(db.of::<note::Entity>(&user), 100).await?;
///     Ok(notes.iter().map(|note| note.text.as_str()).collect())
/// }
/// # let _: Router<palisade::State> = Router::new().route("/notes", get(mine));
/// ```
#[derive(Debug, Clone)]
pub struct Db {
    tables: Tables,
    identity: Identity,
}

/// A table whose rows belong to users: "this object is mine", said once, beside the table (OWASP API1).
pub trait Owned: EntityTrait {
    /// The column with the [id](User::id) of the user whose a row is.
    const OWNER: Self::Column;
}

impl Db {
    /// The rows of one user, to be narrowed further.
    pub fn of<E: Owned>(&self, user: &User) -> Select<E> {
        E::find().filter(E::OWNER.eq(user.id()))
    }

    /// Accounts, sessions and keys: what ends here is refused everywhere within a second.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Deref for Db {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl<S> FromRequestParts<S> for Db
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let ctx = context(parts)?;
        let Some(auth) = &ctx.policy.controls().auth.control else {
            return Err(NO_DATABASE.refuse("a handler asks for the database, and the policy has no `[auth]`"));
        };
        let identity = auth.open(&ctx.policy).await?.identity.clone();
        Ok(Self { tables: identity.store().tables(), identity })
    }
}

/// What a client is told of a database: nothing. The reason stands in the log.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match &error {
            Error::Away(_) => AWAY.refuse("the database is away").retry_after(1),
            Error::Conflict(_) | Error::Orphan => CONFLICT.refuse("the database refused a row"),
            _ => FAILED.refuse("the database could not do this"),
        }
        .with("reason", error.to_string())
    }
}

/// What accounts cannot do just now.
impl From<palisade_identity::service::Trouble> for Refusal {
    fn from(trouble: palisade_identity::service::Trouble) -> Self {
        crate::endpoints::auth::who::trouble(trouble)
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Path;
    use axum::routing::{get, post};
    use http::Method;
    use palisade_store::sea_orm::ActiveValue::Set;
    use palisade_test::kept::Kept;
    use palisade_test::on_both;

    use super::*;
    use crate::extract::{Admin, HasRole, UserId};
    use crate::testing::Harness;

    mod note {
        use palisade_store::sea_orm;
        use palisade_store::sea_orm::entity::prelude::*;

        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "note")]
        pub(super) struct Model {
            #[sea_orm(primary_key)]
            pub(super) id: i64,
            pub(super) owner: String,
            #[sea_orm(unique)]
            pub(super) text: String,
        }

        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub(super) enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    }

    impl Owned for note::Entity {
        const OWNER: note::Column = note::Column::Owner;
    }

    async fn mine(user: User, db: Db) -> Result<String, Refusal> {
        db.create(note::Entity).await?;
        let notes = db.all(db.of::<note::Entity>(&user), 100).await?;
        Ok(notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>().join(","))
    }

    async fn write(user: User, db: Db, text: String) -> Result<String, Refusal> {
        db.create(note::Entity).await?;
        let row = note::ActiveModel { owner: Set(user.id()), text: Set(text), ..Default::default() };
        Ok(db.insert(row).await?.text)
    }

    async fn delete_user(_: HasRole<Admin>, Path(id): Path<String>, db: Db) -> Result<StatusCode, Refusal> {
        let id = UserId::parse(&id);
        match id {
            Some(id) if db.identity().delete_user(id).await? => Ok(StatusCode::NO_CONTENT),
            _ => Ok(StatusCode::NOT_FOUND),
        }
    }

    fn router() -> axum::Router<State> {
        axum::Router::new().route("/notes", get(mine).post(write)).route("/users/{id}", post(delete_user))
    }

    const PASSWORD: &str = "vier alte Kutschen im Nebel";

    /// The id and a session's cookie of a new account.
    async fn account(app: &Harness, name: &str) -> (String, String) {
        let body = format!(r#"{{"username":"{name}","email":"{name}@example.com","password":"{PASSWORD}"}}"#);
        let json = [("content-type", "application/json")];
        let made = app.send(Method::POST, "/auth/register", &json, body.clone()).await;
        assert_eq!(made.status(), 201, "{}", made.text());
        let made: serde_json::Value = serde_json::from_str(&made.text()).unwrap();
        let login = format!(r#"{{"username":"{name}","password":"{PASSWORD}"}}"#);
        let login = app.send(Method::POST, "/auth/login", &json, login).await;
        assert_eq!(login.status(), 200, "{}", login.text());
        let cookies: Vec<&str> = login.headers().get_all("set-cookie").iter().map(|c| c.to_str().unwrap()).collect();
        let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-palisade=")).unwrap();
        (made["id"].as_str().unwrap().to_owned(), cookie.split(';').next().unwrap().to_owned())
    }

    on_both!(rows_of_ones_own_and_accounts);

    async fn rows_of_ones_own_and_accounts(kept: Kept) {
        let state = crate::testing_kept::state(&kept, &[]).await;
        let policy = format!(
            "[server]\nstate = \"{}\"\n[auth]\nregistration = \"open\"\n{}",
            state.path().display(),
            kept.sections()
        );
        let app = Harness::app(&policy, router());
        let (ann, bob) = (account(&app, "ann").await, account(&app, "bob").await);
        let ask = async |method: Method, path: &str, cookie: &str, body: &'static str| {
            let own = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
            app.send(method, path, &own, body).await
        };
        assert_eq!(ask(Method::POST, "/notes", &ann.1, "hers").await.text(), "hers");
        assert_eq!(ask(Method::POST, "/notes", &bob.1, "his' OR 1=1 --").await.text(), "his' OR 1=1 --");
        assert_eq!(ask(Method::GET, "/notes", &ann.1, "").await.text(), "hers", "nobody else's");
        let twice = ask(Method::POST, "/notes", &bob.1, "hers").await;
        assert_eq!((twice.status(), twice.refusal()), (409, Some(&CONFLICT)));
        assert!(!twice.text().contains("note"), "no word of the database: {}", twice.text());

        let path = format!("/users/{}", bob.0);
        assert_eq!(ask(Method::POST, &path, &ann.1, "").await.status(), 403, "no administrator");
        let identity = crate::controls::auth::identity(app.handle()).await.unwrap().unwrap();
        let id = UserId::parse(&ann.0).unwrap();
        let roles = ["admin".to_owned()];
        let edit = palisade_identity::service::Edit { roles: Some(&roles), ..Default::default() };
        identity.edit_user(id, edit).await.unwrap();
        assert_eq!(ask(Method::POST, &path, &ann.1, "").await.status(), 204);
        assert_eq!(ask(Method::GET, "/notes", &bob.1, "").await.status(), 401, "his session has ended with him");
        assert_eq!(ask(Method::POST, &path, &ann.1, "").await.status(), 404);
    }

    #[tokio::test]
    async fn without_a_database_it_says_so() {
        let app = Harness::app("", axum::Router::new().route("/", get(async |_: Db| "never")));
        let answer = app.get("/").await;
        assert_eq!((answer.status(), answer.refusal()), (500, Some(&NO_DATABASE)));
    }
}
